"""`taxonet predict`."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from taxonet.cli.numbers import Whole
from taxonet.cli.output import print_json
from taxonet.errors import UsageError
from taxonet.figures import counted
from taxonet.files import replacing

if TYPE_CHECKING:
    from taxonet.console import Terminal
    from taxonet.data import Inputs
    from taxonet.inference import Prediction

ALIGNED = 1000  # paths that are looked at before the first line, so that the answers stand in a column


def predict(
    paths: Annotated[list[Path] | None, Parameter(negative="")] = None,
    /,
    *,
    model: Annotated[str, Parameter(alias="-m")] = "efficientnet_lite0",
    top: Whole = 5,
    engine: str = "auto",
    threshold: float | None = None,
    json: bool = False,
    csv: Path | None = None,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative="")] = False,
    lists: Annotated[list[Path] | None, Parameter(name="--list", negative="")] = None,
) -> int:
    """Classify pictures; a file that cannot be read is answered with its error, and the exit status is 1.

    Parameters
    ----------
    paths
        Files, folders, glob patterns, CSV or Parquet tables with a column `path`, tar shards (`shard-{000..009}.tar`
        names ten), lists (`@FILE`, or `-` for stdin).
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
        Write path, rank, label, index, probability, error and abstained to this file instead of the terminal; it
        appears when all is answered, in the place of an older one.
    out
        Write the answers to this `.csv`, `.jsonl` or `.parquet` file as they come, for any number of inputs.
    resume
        Go on with `--out` where it ends, after Ctrl-C, a kill or a power cut; where there is none, begin.
    lists
        A file with one path a line, or separated by NUL as `find -print0` writes; `-` is stdin.
    """
    from taxonet.console import Terminal
    from taxonet.data import Inputs

    if not paths and not lists:
        raise UsageError("predict needs at least one file, folder, table, shard or list")
    _check_outputs(json, csv, out, resume)
    inputs = Inputs(paths or (), lists or (), [csv] if csv else ())
    if csv:
        _check_csv(csv, [*(paths or ()), *(lists or ())])
    with Terminal() as terminal:
        if out:
            return _write_out(terminal, inputs, out, resume, model=model, top=top, engine=engine, threshold=threshold)
        answers = _Answers(inputs, model, engine, top, threshold, terminal)
        if json:
            found = [answer.as_dict() for answer in answers.follow("pictures")]
            terminal.finish()
            print_json(found)
        elif csv:
            _write_csv(csv, answers)
            terminal.finish()
            terminal.say(f"{counted(answers.done, 'picture')}{_broken(answers.broken)}: {csv}")
        else:
            _print_lines(answers)
        if not answers.done:
            terminal.say("no pictures: the lists and tables are empty")
    return 1 if answers.broken else 0


def _check_outputs(json: bool, csv: Path | None, out: Path | None, resume: bool) -> None:
    given = [name for name, value in (("--json", json), ("--csv", csv), ("--out", out)) if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other")
    if resume and not out:
        raise UsageError("--resume goes on with a file of answers: it needs --out")
    if csv and not csv.absolute().parent.is_dir():
        raise UsageError(f"the folder {csv.parent} of --csv does not exist")
    if csv and csv.is_dir():
        raise UsageError(f"--csv is {csv}, which is a folder, and a file is wanted")


def _check_csv(csv: Path, inputs: Sequence[Path]) -> None:
    """Refuse to put answers in the place of an input, or of what is no file of answers."""
    from taxonet.inference.results import CsvFormat

    if any(csv.absolute() == path.absolute() or str(path) == f"@{csv}" for path in inputs):
        raise UsageError(f"--csv is {csv}, which is also an input")
    if csv.is_file() and csv.stat().st_size:
        with csv.open("rb") as file:
            if file.read(len(CsvFormat.header)) != CsvFormat.header:
                raise UsageError(f"--csv is {csv}, which is there already and holds no answers; choose another file")


def _write_out(terminal: "Terminal", inputs: "Inputs", out: Path, resume: bool, **options: Any) -> int:
    from taxonet.inference import predict_files

    done = predict_files(
        inputs.paths, lists=inputs.lists, out=out, resume=resume, progress=terminal.pace("pictures"), **options
    )
    terminal.finish()
    before = f" ({done.resumed} of them were there)" if done.resumed else ""
    terminal.say(f"{counted(done.answers, 'picture')}{before}{_broken(done.broken)}: {done.out}")
    return 1 if done.broken else 0


def _broken(count: int) -> str:
    return f", {count:,} of them could not be read" if count else ""


class _Answers:
    """The answers of one command, counted as they pass."""

    def __init__(
        self, inputs: "Inputs", model: str, engine: str, top: int, threshold: float | None, terminal: "Terminal"
    ) -> None:
        from taxonet.inference import load

        self.total = inputs.count()
        source = iter(inputs)
        self.first = list(itertools.islice(source, ALIGNED))
        self.ranks, self._terminal = top, terminal
        self._found = load(model, engine).predict_each(itertools.chain(self.first, source), top, threshold=threshold)
        self.done = self.broken = 0

    def __iter__(self) -> "Iterator[Prediction]":
        for answer in self._found:
            self.done += 1
            self.broken += answer.error is not None
            yield answer

    def follow(self, title: str) -> "Iterator[Prediction]":
        """The answers, with a bar on stderr."""
        pace = self._terminal.pace(title)
        for answer in self:
            pace(self.done, self.broken, self.total)
            yield answer


def _print_lines(answers: _Answers) -> None:
    """A line a picture as they come; the lines themselves are the progress where a person reads them."""
    width = max((len(str(name)) for name in answers.first), default=0)
    for answer in answers if sys.stdout.isatty() else answers.follow("pictures"):
        scores = ", ".join(f"{p.label} {p.probability:.3f}" for p in answer.predictions)
        if answer.abstained:
            scores = f"none of these ({scores})"
        print(f"{answer.path!s:<{width}}  {scores or 'error: ' + str(answer.error)}")


def _write_csv(path: Path, answers: _Answers) -> None:
    from taxonet.inference.results import CsvFormat

    layout = CsvFormat(answers.ranks)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(layout.header)
        file.writelines(layout.encode(answer) for answer in answers.follow("pictures"))
