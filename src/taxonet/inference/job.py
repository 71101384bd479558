"""Large jobs: answers to a file as they come, and the rest of them after any interruption."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from taxonet._version import __version__
from taxonet.data.inputs import Inputs, PathLike, PictureInput
from taxonet.data.sources import kind_of
from taxonet.data.tables import require_pyarrow
from taxonet.errors import DataError, UsageError
from taxonet.files import check_target, remove_leftovers, write_atomically
from taxonet.inference.classifier import Classifier, check_options, name_of
from taxonet.inference.opening import load
from taxonet.inference.parquet import from_parquet, to_parquet
from taxonet.inference.results import AnswerFile, CsvFormat, Format, JsonLines

Progress = Callable[[int, int, int | None], None]
"""Called with (inputs answered, of them broken, inputs in all or None when that is not known)."""

JSON_LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")


@dataclass(frozen=True)
class PredictedFiles:
    """What a job has done: `answers` stand in `out`, `broken` of them are errors, `resumed` stood there before."""

    out: Path
    answers: int
    broken: int
    resumed: int


def predict_files(
    inputs: PathLike | Iterable[PathLike] = (),
    *,
    out: PathLike,
    model: PathLike = "efficientnet_lite0",
    lists: Iterable[PathLike] = (),
    top: int = 5,
    engine: str = "auto",
    threshold: float | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> PredictedFiles:
    """Classify any number of files; the answers go to a file as they come, in the order of the inputs.

    Args:
        inputs: files, folders, patterns, tables, tar shards, lists (`data.Inputs`); an iterator may give any number.
        out: `.csv` (one line a class), `.jsonl` (one object an answer) or `.parquet` (as the CSV; while the work goes
            on the answers stand in `OUT.part.jsonl`). `OUT.run.json` says beside it which model and options answered.
        model: a bundle's path or a catalogue name.
        lists: files that list inputs.
        top: how many classes an answer names.
        engine: what runs the model.
        threshold: probability under which an answer is "none of these"; by default the bundle's.
        resume: go on with `out` after its last whole answer; where there is none, begin.
        progress: is told after every answer.

    A job that was killed at any instant and resumed ends in the bytes of one that was not. The file is always the
    beginning of what the whole job writes, so the inputs may grow at their end and not change before it. (Where a few
    become many, torch may round what it answered to the few in the last place otherwise: its batches were smaller.)

    Raises:
        UsageError: a wrong value; `out` exists and `resume` is False; it was begun with another model or options.
        DataError: an input cannot be used, or `out` cannot be written.
    """
    check_options(top, threshold)
    if not isinstance(out, str | os.PathLike):
        raise UsageError(f"out is {out!r}, it must be a path")
    target = Path(out)
    journal = _journal(target)
    own = (target, journal, _record_path(target))
    sources = Inputs([inputs] if isinstance(inputs, str | os.PathLike) else inputs, lists, own)
    record = _before(target, journal, resume)
    total = sources.count()  # also refuses at once what the work would meet after hours
    classifier = load(model, record.get("engine", engine) if engine == "auto" else engine)
    facts = _facts(classifier, top, threshold)

    def begin(empty: bool) -> None:
        """Under the lock, as another job may have come and gone while the model was opened."""
        finished = journal != target and target.exists()
        if empty and not finished:
            write_atomically(_record_path(target), (json.dumps(facts, indent=2) + "\n").encode())
            return
        _check_record(target, _read_record(target, resume), facts)
        if empty:
            from_parquet(target, journal)

    with AnswerFile(journal, _layout(target, classifier, top), begin) as answers:
        for path in set(own):
            remove_leftovers(path)  # nobody else writes: the journal is locked
        found = _work(classifier, sources, answers, (top, threshold), progress, total)
        if journal != target:
            to_parquet(journal, target)
            if os.name == "posix":  # elsewhere an open file cannot be removed
                journal.unlink(missing_ok=True)
    if journal != target and os.name != "posix":
        journal.unlink(missing_ok=True)
    return PredictedFiles(target, *found)


def _work(
    classifier: Classifier,
    sources: Inputs,
    answers: AnswerFile,
    options: tuple[int, float | None],
    progress: Progress | None,
    total: int | None,
) -> tuple[int, int, int]:
    """Answer what is not answered yet: (answers in all, broken in all, answers that were there)."""
    resumed, broken = answers.done, answers.broken
    done, (top, threshold) = resumed, options
    if progress and resumed:
        progress(done, broken, total)
    rest = classifier.predict_each(_checked(sources, answers), top, threshold=threshold, skip=resumed)
    for done, answer in enumerate(rest, start=resumed + 1):
        answers.append(answer)
        broken += answer.error is not None
        if progress:
            progress(done, broken, total)
    return done, broken, resumed


def _checked(sources: Inputs, answers: AnswerFile) -> Iterator[PictureInput]:
    """The inputs; those that are answered already must be those of the file, in its order."""
    for place, (source, name) in enumerate(zip_longest(sources, answers.names()), start=1):
        if name is not None and (source is None or answers.layout.spelling(name_of(source) or "") != name):
            now = "the inputs end" if source is None else f"the inputs have {name_of(source)}"
            raise UsageError(
                f"answer {place} in {answers.path} is of {name}, where {now}: "
                "the inputs have changed, so it cannot be resumed; give another --out"
            )
        if source is not None:
            yield source


def _journal(target: Path) -> Path:
    suffix = target.suffix.lower()
    if suffix not in (".csv", *JSON_LINES, *PARQUET):
        raise UsageError(f"--out is '{target}', its extension must be .csv, .jsonl or .parquet")
    if kind_of(target) == "folder":
        raise UsageError(f"--out is {target}, which is a folder, and a file is wanted")
    if kind_of(target.absolute().parent) != "folder":
        raise UsageError(f"the folder {target.parent} of --out does not exist")
    check_target(_record_path(target))  # the longest of the names beside it
    if suffix in PARQUET:
        require_pyarrow(target)
        return target.with_name(f"{target.name}.part.jsonl")
    return target


def _layout(target: Path, classifier: Classifier, top: int) -> Format:
    if target.suffix.lower() == ".csv":
        return CsvFormat(min(top, len(classifier.classes)))
    return JsonLines(only_text=target.suffix.lower() in PARQUET)


def _record_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.run.json")


def _before(target: Path, journal: Path, resume: bool) -> dict[str, Any]:
    """What the file that is to be resumed was begun with; nothing where the work begins, or ended as it began."""
    if resume and not _has_answers(journal) and (journal == target or not target.exists()):
        return {}
    return _read_record(target, resume) if target.exists() or journal.exists() else {}


def _there(target: Path) -> Path:
    return target if target.exists() else _journal(target)


def _has_answers(file: Path) -> bool:
    return file.exists() and file.stat().st_size > 0


def _read_record(target: Path, resume: bool) -> dict[str, Any]:
    """What the file that is to be resumed was begun with; refused where nobody asked to resume it."""
    if not resume:
        raise UsageError(f"{_there(target)} is there already: --resume goes on with it, or remove it")
    path = _record_path(target)
    try:
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict) or record.get("schema") != 1:
            raise ValueError
    except FileNotFoundError:
        raise UsageError(
            f"{target} cannot be resumed: {path.name}, which says what answered, is not beside it"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{target} cannot be resumed: {path} cannot be read, or is no record of this version"
        ) from error
    return record


def _facts(classifier: Classifier, top: int, threshold: float | None) -> dict[str, Any]:
    """What decides an answer. `probe` is the logits of a picture that we draw: they tell weights apart."""
    info = classifier.info
    named = json.dumps([info.variant, dict(info.options), info.classes, info.preprocessing, info.temperature])
    return {
        "schema": 1,
        "taxonet": __version__,
        "network": info.variant,
        "model": hashlib.sha256(named.encode()).hexdigest(),
        "engine": classifier.engine.name,
        "top": top,
        "threshold": (info.threshold or 0.0) if threshold is None else threshold,
        "probe": [round(float(logit), 6) for logit in classifier.logits(_drawn(classifier))[0][:64]],
    }


def _drawn(classifier: Classifier) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    height, width = classifier.preprocessing.output_size
    down, across = np.mgrid[0:height, 0:width]
    planes = [255 * down // height, 255 * across // width, (down * across) % 256]
    return np.stack(planes[: classifier.preprocessing.channels], axis=-1).astype(np.uint8)[None]


def _check_record(target: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    then, new = (np.array(record.get("probe", []), np.float64) for record in (before, now))
    same = then.shape == new.shape and bool(np.abs(then - new).max() <= 1e-3 * np.abs(new).max())
    if before.get("model") != now["model"] or not same:
        network = before.get("network")
        what = f"other weights, classes or preprocessing of {network}"
        if network != now["network"]:
            what = f"another model ({network}, not {now['network']})"
        raise UsageError(f"{target} was begun with {what}: resume it with that one, or give another --out")
    for name in ("engine", "top", "threshold"):
        if before.get(name) != now[name]:
            raise UsageError(
                f"{target} was begun with --{name} {before.get(name)}, not {now[name]}: resume it with that"
            )
