"""`taxonet evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from taxonet.cli.numbers import MaybeWhole
from taxonet.cli.output import check_page, print_findings, print_json, print_table
from taxonet.figures import counted
from taxonet.processes import speaks

if TYPE_CHECKING:
    from taxonet.evaluation import Evaluation
    from taxonet.evaluation.evaluate import Augmented
    from taxonet.evaluation.robustness import Robustness
    from taxonet.evaluation.selection import Selected


def evaluate(
    model: str,
    data: Path,
    /,
    *,
    split: str | None = None,
    engine: str = "auto",
    tta: str | None = None,
    robustness: bool = False,
    robustness_pictures: MaybeWhole = None,
    html: Path | None = None,
    json: bool = False,
) -> int:
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
        What runs the model: auto (the fastest that agrees with torch, measured once), torch, openvino or onnxruntime.
    tta
        Test-time augmentation, the mean over views: flip (2), crops (5), scales (3), or several, as in flip,crops (10).
    robustness
        Also add noise, blur, JPEG, darkness, light, less contrast and rotation to the pictures, for about a minute.
    robustness_pictures
        Take so many pictures for that, instead of what fits a minute.
    html
        Write a report to this file: one page that needs nothing else.
    json
        One JSON document on stdout.
    """
    from taxonet.console import Terminal
    from taxonet.evaluation import evaluate as measure

    check_page(html)
    with Terminal() as terminal:
        result = measure(
            model,
            data,
            split=split,
            engine=engine,
            tta=tta,
            robustness=robustness,
            robustness_pictures=robustness_pictures,
            html=html,
            progress=terminal.follow("pictures") if speaks() else None,
            listener=terminal if speaks() else None,
        )
    if not speaks():  # torchrun: one process prints
        return 0
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
    return 1 if result.findings else 0


def _print(result: "Evaluation") -> None:
    _print_figures(result)
    scores = [score for score in result.metrics.per_class if score.n]
    rows = [(s.label, str(s.n), *(_figure(v) for v in (s.recall, s.precision, s.f1))) for s in scores]
    print_table(("class", "n", "recall", "precision", "f1"), rows, right=frozenset({1, 2, 3, 4}))
    absent = [score.label for score in result.metrics.per_class if not score.n]
    if absent:
        number = counted(len(absent), "class", "classes")
        print(f"\nwithout pictures: {', '.join(absent[:10])}{' …' if len(absent) > 10 else ''} ({number})")
    if result.robustness:
        _print_robustness(result.robustness)
    if result.findings:
        print(f"\nnot scored ({len(result.findings)}):")
        print_findings(result.findings)


def _print_figures(result: "Evaluation") -> None:
    metrics, intervals = result.metrics, result.intervals
    if result.warning:
        print(f"warning: {result.warning}")
    print(f"pictures    {metrics.n}  (split: {result.split})")
    print(f"top-1       {metrics.top1:.4f}  (95 % interval {_between(metrics.top1_ci)})")
    if len(metrics.per_class) > 5:  # else it is 1 whatever the model says
        print(f"top-5       {metrics.top5:.4f}  (95 % interval {_between(metrics.top5_ci)})")
    for name, key in (("balanced", "balanced_accuracy"), ("macro F1", "macro_f1"), ("log-loss", "log_loss")):
        interval = intervals.get(key)
        print(f"{name:<11} {getattr(metrics, key):.4f}" + (f"  (bootstrap {_between(interval)})" if interval else ""))
    print(f"Brier       {metrics.brier:.4f}")
    print(f"calibration {metrics.ece:.4f}  (expected calibration error, 15 bins; {metrics.ece_adaptive:.4f} adaptive)")
    if result.selected:
        _print_selected(result.selected)
    if result.augmented:
        _print_augmented(result.augmented, metrics.n)
    print()


def _print_selected(chosen: "Selected") -> None:
    interval = f" ({_between(chosen.precision_ci)})" if chosen.precision_ci else ""
    right = f"right of these {_figure(chosen.precision)}{interval}"
    print(f"answered    {chosen.coverage:.4f}  (threshold {chosen.threshold:.4f}; {right})")


def _print_augmented(found: "Augmented", n: int) -> None:
    interval = found.top1_change_ci
    change = f"change {found.top1_change:+.4f}" + (
        f", 95 % {interval[0]:+.4f} to {interval[1]:+.4f}" if interval else ""
    )
    print(f"views       {found.views}: top-1 {found.plain_top1:.4f} without ({change})")
    print(f"            {found.passes} passes a picture, {found.seconds / n:.3f} s each; {found.rule}")


def _print_robustness(found: "Robustness") -> None:
    print(f"\nrobustness: {found.sampling}, {found.seconds:.0f} s")
    print(f"as they are {found.clean:.3f} ({_between(found.clean_ci, 3)})")
    names = list(dict.fromkeys(score.corruption for score in found.scores))
    rows = [
        (name, *(f"{score.top1:.3f} ({_between(score.top1_ci, 3)})" for score in found.of_corruption(name)))
        for name in names
    ]
    print_table(("corruption", "severity 1", "severity 2", "severity 3"), rows)
    interval = found.mean_corruption_accuracy_ci
    print(f"mean        {found.mean_corruption_accuracy:.3f}" + (f" ({_between(interval, 3)})" if interval else ""))


def _between(pair: tuple[float, float], digits: int = 4) -> str:
    return f"{pair[0]:.{digits}f} to {pair[1]:.{digits}f}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
