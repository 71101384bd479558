"""`taxonet calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from taxonet.cli.output import check_page, print_findings, print_json

if TYPE_CHECKING:
    from taxonet.evaluation import CalibrationResult
    from taxonet.evaluation.selection import Choice


def calibrate(
    model: str,
    data: Path,
    /,
    *,
    out: Path | None = None,
    split: str | None = None,
    target_precision: float | None = None,
    target_coverage: float | None = None,
    engine: str = "auto",
    html: Path | None = None,
    json: bool = False,
) -> int:
    """Make a bundle's probabilities mean what they say, and choose when it answers "none of these".

    Fits the temperature by log-loss and, for a target, the threshold; both are stored in the bundle in one step and
    nothing else in it changes. Use pictures that the model was not trained on, and keep the test pictures out.

    Parameters
    ----------
    model
        A bundle's path; a network's name needs --out.
    data
        A folder of class folders, or a CSV/Parquet table with path and label.
    out
        Write the bundle here instead of over itself.
    split
        train, val or test; by default val where the data has it, else everything.
    target_precision
        The share of answers that are to be right, such as 0.95; the others become "none of these".
    target_coverage
        The share of pictures that are to be answered, such as 0.9.
    engine
        What runs the model: auto (the fastest that agrees with torch, measured once), torch, openvino or onnxruntime.
    html
        Write a report with reliability before and after to this file.
    json
        One JSON document on stdout.
    """
    from taxonet.console import Terminal
    from taxonet.evaluation import calibrate as fit

    check_page(html)
    with Terminal() as terminal:
        result = fit(
            model,
            data,
            out=out,
            split=split,
            target_precision=target_precision,
            target_coverage=target_coverage,
            engine=engine,
            html=html,
            progress=terminal.follow("pictures"),
        )
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
    return 1 if result.findings or result.problem else 0


def _print(result: "CalibrationResult") -> None:
    fitted = result.calibration
    if result.evaluation.warning:
        print(f"warning: {result.evaluation.warning}")
    print(f"pictures     {fitted.n}  (split: {result.split})")
    why = f"  (it stays: {fitted.reason})" if fitted.reason else f"  (the bundle had {result.temperature_before:.4f})"
    print(f"temperature  {fitted.temperature:.4f}{why}")
    change = fitted.log_loss_change_ci
    interval = f"; change {change[0]:+.4f} to {change[1]:+.4f}" if change else ""
    print(f"log-loss     {fitted.before['log_loss']:.4f} → {fitted.after['log_loss']:.4f}  (without, with{interval})")
    print(f"calibration  {fitted.before['ece']:.4f} → {fitted.after['ece']:.4f}  (expected error over 15 bins)")
    if not fitted.reason:
        print("             with: each fifth of the pictures at the temperature that the other fifths give")
    if result.choice:
        _print_choice(result.choice)
    for text in (result.note, result.problem):
        if text:
            print(text)
    if result.bundle:
        print(f"written: {result.bundle}")
    print_findings(result.findings, "not used: ")


def _print_choice(choice: "Choice") -> None:
    print(f"threshold    {choice.threshold:.4f}  (for a {choice.target} of {choice.wanted:g})")
    for name, found in (("here", choice.chosen_on), ("held out", choice.held_out)):
        if found is None:
            print(f"  {name:<9}  too few pictures: some fifth has no threshold of its own")
            continue
        low, high = found.coverage_ci
        coverage = f"{found.coverage:.3f} ({low:.3f} to {high:.3f})"
        precision = "–"
        if found.precision is not None and found.precision_ci is not None:
            precision = f"{found.precision:.3f} ({found.precision_ci[0]:.3f} to {found.precision_ci[1]:.3f})"
        print(f"  {name:<9}  answered {coverage}, right of these {precision}")
