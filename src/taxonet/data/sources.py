"""A DATA argument read into samples: a folder of class folders, with or without splits, or a CSV/Parquet table.

Nothing is skipped in silence: what is not a sample comes back as a `Finding` with its path and reason.
"""

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taxonet.errors import DataError, UsageError, nearest

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
    if source.is_dir():
        found = _read_folder(source)
    elif source.suffix.lower() in {".csv", ".parquet", ".pq"} and source.is_file():
        found = _read_table(source)
    elif source.exists():
        raise DataError(f"{source} is neither a folder nor a .csv or .parquet file")
    else:
        raise DataError(f"{source} does not exist{_nearest_path(source)}")
    if not found.samples:
        raise DataError(f"{source} holds no pictures in class folders (formats: {_formats()})")
    return found


def _nearest_path(path: Path) -> str:
    try:
        return nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""


def _formats() -> str:
    return " ".join(sorted(e.lstrip(".") for e in EXTENSIONS))


def _read_folder(root: Path) -> DataSet:
    findings: list[Finding] = []
    folders, loose = _children(root)
    split_folders: dict[str, Path] = {SPLIT_NAMES[f.name.lower()]: f for f in folders if f.name.lower() in SPLIT_NAMES}
    if split_folders and _all_class_folders(split_folders.values()):
        others = [f for f in folders if f.name.lower() not in SPLIT_NAMES]
        findings += [Finding(str(f), "it stands beside the splits and is in none of them") for f in others]
        order: list[str] = [name for name in ("train", "val", "test") if name in split_folders]
        splits = {name: _class_folders(split_folders[name], findings) for name in order}
    else:
        splits = {WHOLE: _class_folders(root, findings, known=folders)}
        if not splits[WHOLE] and any(_is_picture(f) for f in loose):
            raise DataError(f"{root} holds pictures but no class folders, each class needs a folder with its name")
    findings += [Finding(str(f), "it is in no class folder") for f in loose if split_folders or splits[WHOLE]]
    return DataSet(root, {name: samples for name, samples in splits.items() if samples}, tuple(findings))


def _all_class_folders(folders: Iterable[Path]) -> bool:
    return all(_children(folder)[0] for folder in folders)


def _children(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files directly below, hidden ones left out, in name order."""
    try:
        entries = sorted((e for e in folder.iterdir() if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    return [e for e in entries if e.is_dir()], [e for e in entries if not e.is_dir()]


def _class_folders(root: Path, findings: list[Finding], known: list[Path] | None = None) -> tuple[Sample, ...]:
    folders = known if known is not None else _children(root)[0]
    samples: list[Sample] = []
    for folder in folders:
        pictures = []
        for file in _files_below(folder):
            if _is_picture(file):
                pictures.append(Sample(file, folder.name))
            else:
                findings.append(Finding(str(file), f"'{file.suffix or file.name}' is not a picture's extension"))
        if not pictures:
            findings.append(Finding(str(folder), "the class folder holds no pictures"))
        samples += pictures
    return tuple(samples)


def _files_below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(where, name) for name in sorted(files) if not name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS


def _read_table(path: Path) -> DataSet:
    columns = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    for needed in ("path", "label"):
        if needed not in columns:
            raise DataError(f"{path} has no column '{needed}'{nearest(needed, columns)}")
    findings: list[Finding] = []
    splits: dict[str, list[Sample]] = {}
    split_column: Sequence[str] = columns.get("split") or [WHOLE] * len(columns["path"])
    rows = zip(columns["path"], columns["label"], split_column, strict=True)
    for number, (file, label, split) in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        name = SPLIT_NAMES.get(split.strip().lower(), WHOLE if split == WHOLE else "")
        if not file.strip() or not label.strip():
            findings.append(Finding(where, "the path or the label is empty"))
        elif not name:
            findings.append(Finding(where, f"'{split}' is not a split, it must be train, val or test"))
        else:
            splits.setdefault(name, []).append(Sample(path.parent / file.strip(), label.strip()))
    order = [name for name in ("train", "val", "test", WHOLE) if name in splits]
    return DataSet(path, {name: tuple(splits[name]) for name in order}, tuple(findings))


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns: dict[str, list[str]] = {name.strip(): [] for name in reader.fieldnames or []}
            for row in reader:
                for name in reader.fieldnames or []:
                    columns[name.strip()].append(row[name] or "")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    return columns


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path} is Parquet, which needs pyarrow: pip install 'taxonet[parquet]'") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return {name: ["" if v is None else str(v) for v in table.column(name).to_pylist()] for name in table.column_names}


def expand_inputs(inputs: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files that PATH arguments mean, in the order given: files, whole folders, and glob patterns.

    A folder gives its pictures in name order; a path that does not exist stays, so that it is answered with an error.
    """
    paths: list[Path] = []
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            pictures = [file for file in _files_below(path) if _is_picture(file)]
            if not pictures:
                raise DataError(f"{path} holds no pictures (formats: {_formats()})")
            paths += pictures
        elif not path.exists() and glob.has_magic(str(item)):
            matches = sorted(Path(match) for match in glob.glob(str(item), recursive=True))  # noqa: PTH207 - an absolute pattern is allowed here
            if not matches:
                raise DataError(f"no file matches {item}")
            paths += [match for match in matches if not match.is_dir()]
        else:
            paths.append(path)
    return paths
