"""`taxonet evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from taxonet.cli.output import print_json, print_table
from taxonet.processes import speaks

if TYPE_CHECKING:
    from taxonet.evaluation import Evaluation


def evaluate(model: str, data: Path, /, *, split: str | None = None, engine: str = "auto", json: bool = False) -> int:
    """Measure a model on labelled pictures; labels are matched by name.

    Parameters
    ----------
    model
        A bundle's path, or a network with pretrained weights.
    data
        A folder of class folders, or a CSV/Parquet table with path and label.
    split
        train, val or test; by default test where the data has it, else val, else everything.
    engine
        What runs the model: auto or torch.
    json
        One JSON document on stdout.
    """
    from taxonet.console import Terminal
    from taxonet.evaluation import evaluate as measure

    with Terminal() as terminal:
        follow = terminal.follow("pictures") if speaks() else None
        result = measure(model, data, split=split, engine=engine, progress=follow)
    if not speaks():  # torchrun: one process prints
        return 0
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
    return 1 if result.findings else 0


def _print(result: "Evaluation") -> None:
    metrics = result.metrics
    low, high = metrics.top1_ci
    print(f"pictures    {metrics.n}  (split: {result.split})")
    print(f"top-1       {metrics.top1:.4f}  (95 % interval {low:.4f} to {high:.4f})")
    print(f"top-5       {metrics.top5:.4f}")
    print(f"log-loss    {metrics.log_loss:.4f}")
    print(f"calibration {metrics.ece:.4f}  (expected calibration error, 15 bins)\n")
    scores = [score for score in metrics.per_class if score.n]
    rows = [(s.label, str(s.n), *(_figure(v) for v in (s.recall, s.precision, s.f1))) for s in scores]
    print_table(("class", "n", "recall", "precision", "f1"), rows, right=frozenset({1, 2, 3, 4}))
    absent = [score.label for score in metrics.per_class if not score.n]
    if absent:
        print(f"\nwithout pictures: {', '.join(absent[:10])}{' …' if len(absent) > 10 else ''} ({len(absent)} classes)")
    if result.findings:
        print(f"\nnot scored ({len(result.findings)}):")
        for finding in result.findings:
            print(f"  {finding.path}: {finding.reason}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
