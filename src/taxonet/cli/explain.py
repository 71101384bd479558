"""`taxonet explain`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from taxonet.cli.output import print_json
from taxonet.errors import DataError, UsageError

if TYPE_CHECKING:
    from taxonet.evaluation.explanation import Explanation


def explain(
    model: str,
    photos: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    out: Path,
    method: str = "gradcam",
    target: str | None = None,
    layer: str | None = None,
    json: bool = False,
) -> int:
    """Show which places of a photo spoke for the answer, as a PNG with a caption; a file that cannot be read is named,
    and the exit status is 1.

    Parameters
    ----------
    model
        A bundle's path, or a network with pretrained weights.
    photos
        Files, folders and glob patterns.
    out
        The PNG to write, or for several photos the folder for one PNG each.
    method
        gradcam (fast, coarse), occlusion (seconds, by covering), or integrated_gradients (seconds, by pixels).
    target
        The class whose evidence is asked for; by default the answer.
    layer
        The stage that gradcam looks at; by default the last one.
    json
        One JSON document on stdout: a list with one object a photo, in order.
    """
    from taxonet.console import Terminal
    from taxonet.data import expand_inputs
    from taxonet.evaluation.explanation import Explainer, open_network
    from taxonet.evaluation.overlay import write_overlay

    files = expand_inputs(photos)
    targets = _targets(out, files, method)
    explainer = Explainer(open_network(model), method=method, target=target, layer=layer)
    answers: list[Explanation | str] = []
    with Terminal() as terminal:
        terminal.start("photos", len(files))
        for answer, file in zip(explainer.each(files), targets, strict=True):
            if not isinstance(answer, str):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_overlay(file, answer)
            answers.append(answer)
            terminal.advance(len(answers))
    broken = [answer for answer in answers if isinstance(answer, str)]
    if len(broken) == len(files):
        more = f", as are the other {len(files) - 1}" if len(files) > 1 else ""
        raise DataError(f"{files[0]} cannot be explained{more}: {broken[0]}")
    _show(files, targets, answers, json)
    return 1 if broken else 0


def _targets(out: Path, files: Sequence[Path], method: str) -> list[Path]:
    """The PNG of every photo; in a folder two photos of one name get numbers."""
    if out.suffix.lower() == ".png" and not out.is_dir():
        if len(files) > 1:
            raise UsageError(f"--out is the file {out.name}, but there are {len(files)} photos; give a folder")
        return [out]
    if out.suffix and not out.is_dir():
        raise UsageError(f"--out is {out}, it must end in .png or be a folder")
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out is {out}, which is a file, and a folder is wanted")
    return list(_unique(out, files, method))


def _unique(out: Path, files: Sequence[Path], method: str) -> Iterator[Path]:
    taken: set[str] = set()
    for file in files:
        name, number = file.stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.lower())
        yield out / f"{name}.{method}.png"


def _show(files: Sequence[Path], targets: Sequence[Path], answers: "Sequence[Explanation | str]", json: bool) -> None:
    if json:
        print_json([_row(*item) for item in zip(files, targets, answers, strict=True)])
        return
    for file, target, answer in zip(files, targets, answers, strict=True):
        if isinstance(answer, str):
            print(f"{file}  not explained: {answer}")
        else:
            asked = "" if answer.target == answer.label else f", for {answer.target} {answer.target_probability:.3f}"
            print(f"{file}  {answer.label} {answer.probability:.3f}{asked}  → {target}")


def _row(file: Path, target: Path, answer: "Explanation | str") -> dict[str, Any]:
    if isinstance(answer, str):
        return {"path": str(file), "file": None, "error": answer}
    return {**answer.as_dict(), "path": str(file), "file": str(target), "error": None}
