"""A DATA argument read into samples: a folder of class folders, with or without splits, or a CSV/Parquet table.

Nothing is skipped in silence: what is not a sample comes back as a `Finding` with its path and reason.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from taxonet.data.tables import OVERFLOW, TABLES, read_rows
from taxonet.errors import DataError, UsageError, nearest, nearest_file

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
WHOLE = "all"  # the split of data that comes without one


@dataclass(frozen=True)
class Sample:
    """One picture and the name of its class."""

    path: Path
    label: str


@dataclass(frozen=True)
class Finding:
    """Something that was left out, and why: never a crash, never silence."""

    path: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """What a DATA argument holds: samples by split, in an order that does not depend on the file system."""

    source: Path
    splits: Mapping[str, tuple[Sample, ...]]
    findings: tuple[Finding, ...] = field(default=())

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples of all splits."""
        return tuple(sample for samples in self.splits.values() for sample in samples)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the training samples (of all samples where there is no training split), sorted."""
        source = self.splits.get("train", self.samples)
        return tuple(sorted({sample.label for sample in source}))

    def split(self, name: str) -> tuple[Sample, ...]:
        """The samples of one split; an absent one raises `UsageError`."""
        name = SPLIT_NAMES.get(name, name)
        if name not in self.splits:
            have = ", ".join(self.splits)
            raise UsageError(f"{self.source} has no split '{name}', it has: {have}{nearest(name, self.splits)}")
        return self.splits[name]


def read_data(data: str | os.PathLike[str]) -> DataSet:
    """Read a DATA argument without opening a single picture.

    Args:
        data: a folder of class folders (with or without train/, val/, test/ above them), or a CSV or Parquet file with
            the columns `path` and `label`, and `split` if there are splits; relative paths count from the file.

    Raises:
        DataError: the folder or file does not exist, holds no pictures, or lacks a column.
    """
    source = Path(data)
    kind = kind_of(source)
    if kind == "folder":
        found = _read_folder(source)
    elif kind == "file" and source.suffix.lower() in TABLES:
        found = _read_table(source)
    elif kind:
        raise DataError(f"{source} is neither a folder nor a .csv or .parquet file")
    else:
        raise DataError(f"{source} does not exist{nearest_file(source)}")
    if not found.samples:
        raise DataError(_why_empty(found, kind == "folder"))
    return found


def _why_empty(found: DataSet, is_folder: bool) -> str:
    if is_folder:
        return f"{found.source} holds no pictures in class folders (formats: {formats()})"
    if not found.findings:
        return f"{found.source} has no rows"
    return f"{found.source} has no row that can be used, the first: {found.findings[0].reason}"


def formats() -> str:
    """The extensions of pictures, for a sentence."""
    return " ".join(sorted(e.lstrip(".") for e in EXTENSIONS))


def _read_folder(root: Path) -> DataSet:
    findings: list[Finding] = []
    folders, loose = _children(root)
    split_folders = [f for f in folders if f.name.lower() in SPLIT_NAMES]
    has_splits = any(_children(folder)[0] for folder in split_folders)  # else it is a class that is called so
    if has_splits:
        others = [f for f in folders if f not in split_folders]
        findings += [Finding(str(f), "it stands beside the splits and is in none of them") for f in others]
        splits = _read_splits(split_folders, findings)
    else:
        splits = {WHOLE: _class_folders(folders, findings)}
        if not splits[WHOLE] and any(is_picture(f) for f in loose):
            raise DataError(f"{root} holds pictures but no class folders, each class needs a folder with its name")
    findings += [Finding(str(f), "it is in no class folder") for f in loose]
    return DataSet(root, {name: samples for name, samples in splits.items() if samples}, tuple(findings))


def _read_splits(split_folders: Iterable[Path], findings: list[Finding]) -> dict[str, tuple[Sample, ...]]:
    """The samples of each split; `val` and `validation` beside each other are one."""
    splits: dict[str, tuple[Sample, ...]] = {"train": (), "val": (), "test": ()}
    for folder in split_folders:
        folders, loose = _children(folder)
        splits[SPLIT_NAMES[folder.name.lower()]] += _class_folders(folders, findings)
        findings += [Finding(str(f), "it is in no class folder") for f in loose]
    return splits


def _children(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files directly below, hidden ones left out, in name order."""
    try:
        entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    kinds = {entry: kind_of(entry) for entry in entries}
    return [e for e in entries if kinds[e] == "folder"], [e for e in entries if kinds[e] != "folder"]


def _class_folders(folders: Iterable[Path], findings: list[Finding]) -> tuple[Sample, ...]:
    def unreadable(error: OSError) -> None:
        findings.append(Finding(str(error.filename), f"the folder cannot be listed: {error.strerror}"))

    samples: list[Sample] = []
    for folder in folders:
        pictures = []
        for file in files_below(folder, unreadable):
            if is_picture(file):
                pictures.append(Sample(file, folder.name))
            else:
                findings.append(Finding(str(file), f"'{file.suffix or file.name}' is not a picture's extension"))
        if not pictures:
            findings.append(Finding(str(folder), "the class folder holds no pictures"))
        samples += pictures
    return tuple(samples)


def files_below(folder: Path, unreadable: Callable[[OSError], None]) -> Iterator[Path]:
    """Every file once, hidden ones left out, also where a link leads back to a folder above."""
    seen: set[str] = set()
    for where, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(where, name) for name in sorted(files) if not name.startswith("."))


def kind_of(path: Path) -> Literal["folder", "file", "other"] | None:
    """What a path leads to; None for nothing, and where the system refuses to look: who reads it learns why."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # a name too long, a folder without the right to search it; a null character
        return None
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"


def is_picture(path: Path) -> bool:
    """Whether a name has a picture's extension."""
    return path.suffix.lower() in EXTENSIONS


def _read_table(path: Path) -> DataSet:
    findings: list[Finding] = []
    splits: dict[str, list[Sample]] = {}
    for number, row in enumerate(read_rows(path, ("path", "label"), ("split",)), start=1):
        where, file, label, split = f"{path}, row {number}", row["path"], row["label"], row.get("split", WHOLE)
        name = SPLIT_NAMES.get(split.strip().lower(), WHOLE if split == WHOLE else "")
        if row.get(OVERFLOW):
            findings.append(Finding(where, "it has more cells than the header, put quotes around a text with a comma"))
        elif not file.strip() or not label.strip():
            findings.append(Finding(where, "the path or the label is empty"))
        elif not name:
            findings.append(Finding(where, f"'{split}' is not a split, it must be train, val or test"))
        else:
            splits.setdefault(name, []).append(Sample(path.parent / file.strip(), label.strip()))
    order = [name for name in ("train", "val", "test", WHOLE) if name in splits]
    return DataSet(path, {name: tuple(splits[name]) for name in order}, tuple(findings))
