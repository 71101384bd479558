"""The int8 step of an export: the float file that passed its gate becomes an int8 file, or the reason why not."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.data import DataSet, read_data
from taxonet.errors import BundleError, UsageError, check_whole
from taxonet.inference.artefacts import open_artefact, read_openvino, write_openvino
from taxonet.inference.engines import run_on_all
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.inference.int8.photos import CALIBRATION
from taxonet.inference.int8.quantise import MAX_DROP, Int8Report, check_max_drop, quantise
from taxonet.inference.int8.silence import import_nncf

RECORD = "quantisation"  # the key below the bundle's provenance
RUN_SPLITS = ("train", "val")  # the tables that a training run leaves beside its bundle


@dataclass(frozen=True)
class Int8Options:
    """What the user asks of int8: points of top-1 that may be lost, photos that calibrate, the seed of their draw."""

    max_drop: float = MAX_DROP
    calibration: int = CALIBRATION
    seed: int = 0

    def __post_init__(self) -> None:
        check_max_drop(self.max_drop)
        check_whole("calibration", self.calibration, 1)
        check_whole("seed", self.seed, 0)

    @classmethod
    def given(cls, int8: bool, **values: Any) -> "Int8Options":
        """The values that are not None; one that is given without int8 is refused, as it would do nothing."""
        asked = {name: value for name, value in values.items() if value is not None}
        if asked and not int8:
            raise UsageError(f"{next(iter(asked))} is a value of int8, and int8 is not asked for")
        return cls(**asked)


def check_int8(to: str) -> None:
    """Refuse int8 for a format that does not have it, or without NNCF, before any work is done."""
    if to != "openvino":
        raise UsageError(f"int8 is written for openvino, not for {to}")
    import_nncf()


def photos_for(model: Path, data: str | None) -> DataSet:
    """The labelled photos that are given, else those that the training run beside the bundle was made of.

    Raises:
        UsageError: none are given and there is no run.
        DataError: they cannot be used.
    """
    if data is not None:
        return read_data(data)
    tables = {name: model.parent / f"{name}.csv" for name in RUN_SPLITS}
    if not model.is_file() or not all(table.is_file() for table in tables.values()):
        raise UsageError(
            "int8 needs labelled photos, give them with --data; a bundle that lies in the folder of its training run "
            "brings them along"
        )
    parts = {name: read_data(table) for name, table in tables.items()}
    findings = tuple(finding for part in parts.values() for finding in part.findings)
    return DataSet(model.parent, {name: part.samples for name, part in parts.items()}, findings)


def write_int8(
    draft: Path, data: DataSet, options: Int8Options, pixels: NDArray[np.uint8], bundle: Path, listener: Listener
) -> Int8Report:
    """Put the int8 graph in the place of the float one; where the accuracy is not kept the draft stays as it was.

    Args:
        draft: an OpenVINO file in float32 whose answers are those of the bundle.
        data: labelled photos.
        options: what is asked.
        bundle: the model's file, beside which the table of its training photos may lie.
        pixels: prepared photos on which the written file must answer as the graph that was measured.
        listener: is told how far it is.

    Raises:
        BundleError: the file that was written answers otherwise than the graph that was measured.
    """
    info, model = read_openvino(draft)
    found, report = quantise(
        model,
        info,
        data,
        max_drop=options.max_drop,
        count=options.calibration,
        seed=options.seed,
        bundle=bundle,
        listener=listener,
    )
    if found is None:
        return report
    before = draft.with_suffix(".bin").stat().st_size + draft.stat().st_size
    expected = run_on_all(OpenVinoEngine(found), pixels)
    write_openvino(draft, found, replace(info, provenance={**info.provenance, RECORD: report.record()}))
    if not np.array_equal(run_on_all(open_artefact(draft)[1], pixels), expected):
        raise BundleError("the int8 file answers otherwise than the graph that was measured; nothing was written")
    after = draft.with_suffix(".bin").stat().st_size + draft.stat().st_size
    return replace(report, sizes={"float": before, "int8": after})
