"""Rows of CSV and Parquet tables, one after the other; every cell is a text."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from taxonet.errors import DataError, nearest

TABLES = frozenset({".csv", ".parquet", ".pq"})
OVERFLOW = ""  # where a row's cells beyond the header are kept

Row = Mapping[str, str]


def read_rows(path: Path, needed: Iterable[str], also: Iterable[str] = ()) -> Iterator[Row]:
    """The columns `needed`, and those of `also` that there are; a cell that is missing is an empty text.

    Raises:
        DataError: the table cannot be read, lacks a column that is needed, or has one of them twice.
    """
    read = _csv_rows if path.suffix.lower() == ".csv" else _parquet_rows
    return read(path, tuple(needed), tuple(also))


def require_pyarrow(path: Path) -> None:
    """Refuse a Parquet file, with the command that helps, where it cannot be read or written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise DataError(f"{path} is Parquet, which needs pyarrow: pip install 'taxonet[parquet]'") from error


def _csv_rows(path: Path, needed: Sequence[str], also: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            places = [(name, header.index(name)) for name in _columns(path, header, needed, also)]
            for row in filter(None, reader):
                cells = {name: row[place] if place < len(row) else "" for name, place in places}
                yield cells | {OVERFLOW: "".join(row[len(header) :])}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error


def _parquet_rows(path: Path, needed: Sequence[str], also: Sequence[str]) -> Iterator[Row]:
    require_pyarrow(path)
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = _columns(path, file.schema_arrow.names, needed, also)
            for batch in file.iter_batches(columns=names):
                for row in zip(*(batch.column(name).to_pylist() for name in names), strict=True):
                    yield {name: "" if cell is None else str(cell) for name, cell in zip(names, row, strict=True)}
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _columns(path: Path, header: Sequence[str], needed: Sequence[str], also: Sequence[str]) -> list[str]:
    for name in (*needed, *also):
        if header.count(name) > 1:
            raise DataError(f"{path} has {header.count(name)} columns called '{name}'")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise DataError(f"{path} has one column, '{header[0][:60]}': its cells must be separated by commas")
    for name in needed:
        if name not in header:
            raise DataError(f"{path} has no column '{name}'{nearest(name, header) or _columns_there(header)}")
    return [name for name in (*needed, *also) if name in header]


def _columns_there(header: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in header[:8])
    return f", only {shown}{' …' if len(header) > 8 else ''}" if shown else ", it is empty"
