"""How the pictures differ from those that a run began with, so that it cannot go on."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from taxonet.data import Sample
from taxonet.training.pictures import size_of

NAMED = 2  # pictures that the sentence names of each kind


def changes(run: Path, source: Path, data: Path, now: Mapping[str, Sequence[Sample]]) -> str:
    """A part of a sentence: what is new, gone or elsewhere against the tables of a run.

    Args:
        run: the run's folder, with a table of each split.
        source: where its pictures were when it began; the folder may have moved since.
        data: where they are.
        now: the pictures of each split.
    """
    is_folder = data.is_dir()
    old_root, new_root = (place if is_folder else place.parent for place in (source.absolute(), data.absolute()))
    before = {split: _stored(run / f"{split}.csv", old_root) for split in now}
    after = {split: _now(samples, new_root) for split, samples in now.items()}
    old = {name: facts for pictures in before.values() for name, facts in pictures.items()}
    new = {name: facts for pictures in after.values() for name, facts in pictures.items()}
    both = old.keys() & new.keys()
    kinds = {
        "new": new.keys() - old.keys(),
        "gone or unreadable": old.keys() - new.keys(),
        "of another class": {name for name in both if old[name].label != new[name].label},
        "of another size": {name for name in both if old[name].size not in ("", new[name].size)},
    }
    if not any(kinds.values()):  # a new picture divides the others anew, which would name them all
        kinds = {"in another split": {name for split in now for name in before[split].keys() - after[split].keys()}}
    told = [_told(sorted(names), kind) for kind, names in kinds.items() if names]
    return "; ".join(told) or "the same in another order"


class _Facts(NamedTuple):
    label: str
    size: str  # empty where the table does not say


def _told(names: Sequence[str], kind: str) -> str:
    more = ", …" if len(names) > NAMED else ""
    return f"{len(names):,} {kind} ({', '.join(names[:NAMED])}{more})"


def _now(samples: Sequence[Sample], root: Path) -> dict[str, _Facts]:
    return {_name(x.path.absolute(), root): _Facts(x.label, str(size_of(x.path))) for x in samples}


def _stored(table: Path, root: Path) -> dict[str, _Facts]:
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.DictReader(file)
            return {_name(Path(row["path"]), root): _Facts(row["label"], row.get("bytes") or "") for row in rows}
    except (OSError, KeyError):  # of a run that was stopped before it was written, or of an older release
        return {}


def _name(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")
