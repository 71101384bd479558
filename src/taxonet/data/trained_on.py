"""Whether a model is measured on what it was trained on: its run's folder says which pictures those were."""

import csv
import os
from collections.abc import Iterable
from pathlib import Path

from taxonet.data.sources import Sample

TABLE, RUN = "train.csv", "run.json"  # of a run, beside its bundle


def count_trained_on(model: str | os.PathLike[str], samples: Iterable[Sample]) -> int:
    """How many of the samples are in the table of training pictures of a bundle's run.

    0 where the model is no file in the folder of a run: any other `train.csv` has nothing to do with it.
    """
    table = Path(model).parent / TABLE
    if not Path(model).is_file() or not table.with_name(RUN).is_file():
        return 0
    try:
        with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            trained = {_place(row["path"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, csv.Error):
        return 0
    return sum(_place(sample.path) in trained for sample in samples)


def warning(count: int, n: int, name: str = "the model") -> str:
    """What a reader of figures on such pictures must know; empty where there are none."""
    if not count:
        return ""
    return f"{name} was trained on {count:,} of these {n:,} pictures ({TABLE} beside it), so its figures here flatter"


def _place(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute leaves `..` in
