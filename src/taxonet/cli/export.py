"""`taxonet export`."""

from pathlib import Path
from typing import TYPE_CHECKING

from taxonet.cli.numbers import MaybeWhole
from taxonet.cli.output import print_json
from taxonet.figures import counted

if TYPE_CHECKING:
    from taxonet.inference.int8.quantise import Int8Report


def export(
    model: str,
    /,
    *,
    to: str,
    out: Path,
    data: Path | None = None,
    int8: bool = False,
    max_drop: float | None = None,
    calibration: MaybeWhole = None,
    seed: MaybeWhole = None,
    json: bool = False,
) -> int:
    """Write a model as a file for another engine; refused, with exit status 1, unless it answers as the bundle does.

    With --int8 it is a quarter of the size and faster, and refused when top-1 on photos drops by more than --max-drop.

    Parameters
    ----------
    model
        A bundle's path, or pretrained weights as `taxonet pull` names them.
    to
        openvino (OUT.xml and OUT.bin), onnx (OUT.onnx) or pt2 (OUT.pt2, for torch.export.load). The first two are
        taken by `taxonet predict -m`, which then needs no torch.
    out
        The file, with or without its ending.
    data
        Photos to compare the export with the bundle on: a folder or a table; by default the shipped photos. For --int8
        they are labelled photos: train calibrates and test or val measures; without splits a third calibrates
        and the others measure; by default those of the training run in whose folder the bundle lies.
    int8
        Round weights and activations to 8 bits (openvino only; needs the extra int8).
    max_drop
        Percentage points of top-1 that int8 may lose, by default 1; other settings are tried before it is
        refused. A negative number asks for a gain.
    calibration
        How many photos int8 takes its ranges from, at most, by default 300; balanced over classes.
    seed
        Of the draw of these photos, by default 0.
    json
        One JSON document on stdout: files, bytes, agreement, int8, problem, errors, seconds.
    """
    from taxonet.console import Terminal
    from taxonet.inference.export import export as export_model

    with Terminal() as terminal:
        done = export_model(
            model,
            to=to,
            out=out,
            data=data,
            int8=int8,
            max_drop=max_drop,
            calibration=calibration,
            seed=seed,
            listener=terminal,
        )
        if json:
            print_json(done.as_dict())
        elif done.problem:
            terminal.say(f"taxonet: {done.problem}")
        else:
            for file in done.files:
                print(f"{file}  {file.stat().st_size:,} bytes")
            before = "before quantising, " if done.int8 else ""
            print(f"{before}on {counted(done.agreement.pictures, 'view')} of {done.photos}: {done.agreement}")
            if done.int8:
                _print_int8(done.int8)
    if done.findings and not json:
        print(f"\nnot used ({len(done.findings)}):")
        for finding in done.findings:
            print(f"  {finding.path}: {finding.reason}")
    return 1 if done.problem or done.findings else 0


def _print_int8(report: "Int8Report") -> None:
    drop, rates, sizes = report.drop, report.rates, report.sizes
    assert drop is not None
    photos = ", ".join(f"{count} {use}" for use, count in report.photos.items())
    print(f"\nint8         {report.setting}")
    print(f"photos       {photos}  ({report.origin}; seed {report.seed})")
    print(f"top-1        {drop.before:.4f} ({_between(drop.before_ci)}) → {drop.after:.4f} ({_between(drop.after_ci)})")
    low, high = drop.points_ci
    interval = f"{_points(low)} to {_points(high)}"
    print(f"drop         {_points(drop.points)} points (95 % interval {interval}; {report.max_drop:g} allowed)")
    print(f"             {counted(drop.lost, 'photo')} lost, {drop.gained} gained of {drop.n}")
    print(
        f"agreement    {report.agreement:.4f} of all photos get the same label; logits move by {report.logit_error:.3f}"
    )
    print(f"log-loss     {drop.log_loss_before:.4f} → {drop.log_loss_after:.4f}  (at the bundle's temperature)")
    before, after = rates["float"], rates["int8"]
    print(f"speed        {before.per_second:.0f} → {after.per_second:.0f} images/s, network alone, all cores")
    print(f"one photo    {before.single_ms:.1f} → {after.single_ms:.1f} ms, network alone")
    print(f"size         {sizes['float'] / 1e6:.1f} → {sizes['int8'] / 1e6:.1f} MB")
    floats = ", ".join(report.float_layers) or "none"
    print(f"float        {len(report.float_layers)} of {report.layers} layers: {floats}")
    if report.not_executed:
        print(f"             int8 in the file, float on this machine: {', '.join(report.not_executed)}")
    for note in report.notes:
        print(f"note         {note}")


def _between(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.4f} to {pair[1]:.4f}"


def _points(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # no minus before a zero
