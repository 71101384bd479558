"""Answers as a Parquet table: the columns of the CSV, one row a class of an answer, or one with the error."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from taxonet.errors import DataError
from taxonet.files import replacing

ROWS = 2**16  # in memory at a time: a row group


def to_parquet(journal: Path, target: Path) -> None:
    """Write the answers of a file of JSON lines as Parquet, in one step."""
    import pyarrow
    import pyarrow.parquet

    schema = _schema()
    with (
        journal.open("rb") as file,
        replacing(target) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for rows in _groups(row for line in file for row in _rows(json.loads(line))):
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))


def from_parquet(target: Path, journal: Path) -> None:
    """Bring a finished table back into JSON lines, so that it can grow; DataError where it is none."""
    with replacing(journal) as temporary, temporary.open("wb") as lines:
        for answer in _answers(target):
            lines.write((json.dumps(answer, ensure_ascii=False) + "\n").encode())


def _answers(target: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    answer: dict[str, Any] | None = None
    try:
        with pyarrow.parquet.ParquetFile(target) as file:
            if not file.schema_arrow.equals(_schema()):
                raise DataError(f"{target} cannot be resumed: it is no table of answers, its columns are others")
            for batch in file.iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    if row["rank"] in (None, 1):
                        if answer:
                            yield answer
                        answer = {"path": row["path"], "predictions": [], "error": row["error"]}
                        answer["abstained"] = bool(row["abstained"])
                    if answer and row["rank"]:
                        answer["predictions"].append({key: row[key] for key in ("label", "index", "probability")})
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{target} cannot be resumed, it is damaged: {str(error).splitlines()[0]}") from error
    if answer:
        yield answer


def _schema() -> Any:
    import pyarrow

    types = (pyarrow.string(), pyarrow.int32(), pyarrow.string(), pyarrow.int32(), pyarrow.float64())
    names = ("path", "rank", "label", "index", "probability")
    return pyarrow.schema(
        [*zip(names, types, strict=True), ("error", pyarrow.string()), ("abstained", pyarrow.bool_())]
    )


def _rows(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    path = answer["path"]
    for rank, score in enumerate(answer["predictions"], start=1):
        yield {"path": path, "rank": rank, **score, "error": None, "abstained": answer["abstained"]}
    if answer["error"]:
        yield {"path": path, "error": answer["error"]}


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while group := list(islice(rows, ROWS)):
        yield group
