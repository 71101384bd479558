"""`taxonet predict`."""

import csv as csv_module
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from taxonet.cli.output import print_json
from taxonet.errors import UsageError
from taxonet.files import write_atomically

if TYPE_CHECKING:
    from taxonet.inference import Prediction


def predict(
    paths: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    model: Annotated[str, Parameter(alias="-m")] = "efficientnet_lite0",
    top: int = 5,
    engine: str = "auto",
    threshold: float | None = None,
    json: bool = False,
    csv: Path | None = None,
) -> int:
    """Classify pictures; a file that cannot be read is answered with its error, and the exit status is 1.

    Parameters
    ----------
    paths
        Files, folders and glob patterns.
    model
        A bundle, an export (X.xml, X.onnx), which needs no torch, or pretrained weights as `taxonet pull` names them:
        densenet121.tv_in1k, efficientnet_lite0.
    top
        How many classes an answer names.
    engine
        What runs the model: auto (the fastest that agrees with torch, measured once), torch, openvino or onnxruntime.
    threshold
        The probability under which an answer is "none of these"; by default what `taxonet calibrate` stored in the
        bundle, 0 always answers.
    json
        One JSON document on stdout: a list with one object an input, in order.
    csv
        Write path, rank, label, index, probability, error and abstained to this file instead of the terminal.
    """
    from taxonet.console import Terminal
    from taxonet.inference import predict as predict_files

    if not paths:
        raise UsageError("predict needs at least one file or folder")
    if json and csv:
        raise UsageError("--json and --csv exclude each other")
    if csv and not csv.absolute().parent.is_dir():
        raise UsageError(f"the folder {csv.parent} of --csv does not exist")
    if csv and csv.is_dir():
        raise UsageError(f"--csv is {csv}, which is a folder, and a file is wanted")
    with Terminal() as terminal:
        found = predict_files(
            paths, model=model, top=top, engine=engine, threshold=threshold, progress=terminal.follow("pictures")
        )
    broken = [answer for answer in found if answer.error]
    if json:
        print_json([answer.as_dict() for answer in found])
    elif csv:
        _write_csv(csv, found)
        terminal.say(f"{len(found)} pictures, {len(broken)} of them could not be read: {csv}")
    else:
        _print_lines(found)
    return 1 if broken else 0


def _print_lines(found: Sequence["Prediction"]) -> None:
    width = max(len(str(answer.path)) for answer in found)
    for answer in found:
        scores = ", ".join(f"{p.label} {p.probability:.3f}" for p in answer.predictions)
        if answer.abstained:
            scores = f"none of these ({scores})"
        print(f"{answer.path!s:<{width}}  {scores or 'error: ' + str(answer.error)}")


def _write_csv(path: Path, found: Sequence["Prediction"]) -> None:
    text = io.StringIO(newline="")
    writer = csv_module.writer(text)
    writer.writerow(["path", "rank", "label", "index", "probability", "error", "abstained"])
    for answer in found:
        for rank, p in enumerate(answer.predictions, start=1):
            abstained = "yes" if answer.abstained else "no"
            writer.writerow([answer.path, rank, p.label, p.index, f"{p.probability:.6f}", "", abstained])
        if answer.error:
            writer.writerow([answer.path, "", "", "", "", answer.error, ""])
    write_atomically(path, text.getvalue().encode(errors="backslashreplace"))
