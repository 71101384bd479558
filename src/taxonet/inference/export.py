"""`export`: a model as OpenVINO, ONNX or torch.export file that carries the bundle's JSON, and is refused when it
answers otherwise than the bundle."""

import glob
import os
import shutil
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener, Silent
from taxonet.data.inputs import Inputs
from taxonet.data.sources import DataSet, Finding, is_picture, kind_of
from taxonet.errors import UsageError, check_model, nearest
from taxonet.files import check_target, replacing
from taxonet.images import Preprocessing
from taxonet.inference.agreement import PICTURES, Agreement, compare_logits, prepared, shipped
from taxonet.inference.artefacts import is_artefact, open_artefact, write_onnx, write_openvino
from taxonet.inference.conversion import to_onnx, to_openvino, to_pt2
from taxonet.inference.engines import TorchEngine, run_on_all
from taxonet.inference.engines.libraries import check_onnx
from taxonet.inference.int8.photos import divide
from taxonet.inference.int8.quantise import Int8Report
from taxonet.inference.int8.writing import Int8Options, check_int8, photos_for, write_int8
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.finding import find_model

if TYPE_CHECKING:
    from taxonet.networks.layers import Network

DRAFT, OLD = ".draft", 3600.0  # the folder of an export at work; seconds after which it is none any more
SUFFIXES = {"openvino": ".xml", "onnx": ".onnx", "pt2": ".pt2"}
PT2_INFO = "taxonet.json"  # the extra file of a pt2 archive


@dataclass(frozen=True)
class Export:
    """What was exported: the files (none where the export was refused), and how it agrees with the bundle."""

    to: str
    files: tuple[Path, ...]
    bytes: int
    agreement: Agreement
    photos: str
    seconds: float
    int8: Int8Report | None = None  # None in float32, and where the float32 graph did not agree already
    findings: tuple[Finding, ...] = ()  # of `data`: what could not be used

    @property
    def problem(self) -> str | None:
        """Why nothing was written, None where the export stands."""
        if self.agreement.holds:
            return self.int8.problem if self.int8 else None
        return f"the export does not answer as the bundle does, so nothing was written: {self.agreement}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "to": self.to,
            "files": [str(file) for file in self.files],
            "bytes": self.bytes,
            "agreement": {**self.agreement.as_dict(), "photos": self.photos},
            "int8": self.int8.as_dict() if self.int8 else None,
            "problem": self.problem,
            "errors": [{"path": finding.path, "error": finding.reason} for finding in self.findings],
            "seconds": round(self.seconds, 2),
        }


def export(
    model: str | os.PathLike[str],
    *,
    to: str,
    out: str | os.PathLike[str],
    data: str | os.PathLike[str] | None = None,
    int8: bool = False,
    max_drop: float | None = None,
    calibration: int | None = None,
    seed: int | None = None,
    listener: Listener | None = None,
) -> Export:
    """Write a model as a file for another engine, if it answers there as it does here.

    The file that was written is opened and run on photos before it gets its name: each logit must be within
    `agreement.BOUND` of the largest logit of torch's, and all labels must be equal (but for ties within that
    difference). What fails leaves no file.

    Args:
        model: a bundle's path or a catalogue name, as for `load`.
        to: "openvino" (`out.xml` and `out.bin`), "onnx" (`out.onnx`) or "pt2" (`out.pt2`, for torch.export.load).
        out: where to write, with or without the ending.
        data: photos to compare on: a folder or a table; by default the shipped photos, in 16 views.
            For int8 they are labelled photos that calibrate and measure (docs/int8.md); by default those of the
            training run beside the bundle.
        int8: round weights and activations to 8 bits (for openvino), if the accuracy on photos is kept.
        max_drop: percentage points of top-1 that int8 may lose, 1 where nothing is said.
        calibration: photos that int8 takes its ranges from, at most, 300 where nothing is said.
        seed: of the draw of these photos, 0 where nothing is said.
        listener: is told what is going on.

    Returns:
        The files and the agreement; `problem` says why an export was refused.

    Raises:
        UsageError: an unknown format, a place that cannot be written, a missing library, or a value of int8 without
            int8.
        BundleError, DataError: the model or the photos cannot be used.
    """
    started, listener = time.monotonic(), listener or Silent()
    check_model(model)
    target = _target(to, out)
    if is_artefact(model):
        raise UsageError(f"{model} is an export already, export its bundle")
    options = Int8Options.given(int8, max_drop=max_drop, calibration=calibration, seed=seed)
    found: DataSet | None = None
    if int8:
        check_int8(to)
        found = photos_for(Path(model), None if data is None else os.fspath(data))
        divide(found, find_model(model).info().classes)  # refuses photos of other classes before the work
    paths = [] if data is None else [sample.path for sample in found.samples] if found else _pictures(data)
    from taxonet.weights.networks import open_found

    info, network = open_found(find_model(model))
    preprocessing, findings = Preprocessing.parse(info.preprocessing), found.findings if found else ()
    if data is None:
        pixels = shipped(preprocessing)
    else:
        pixels, unreadable = prepared(preprocessing, paths[:: max(1, len(paths) // PICTURES)])
        findings += unreadable
    listener.say(f"{info.variant}: converting to {to}")
    expected = TorchEngine(network, info.preprocessing).run(pixels)
    _remove_old_drafts(target)
    with TemporaryDirectory(prefix=f".{target.name}.", suffix=DRAFT, dir=target.parent) as folder:
        draft = Path(folder) / f"model{target.suffix}"
        _WRITERS[to](draft, info, network)
        listener.say(f"comparing with the bundle on {len(pixels)} pictures")
        agreement, report = compare_logits(expected, _RUNNERS[to](draft, pixels)), None
        if int8 and found and agreement.holds:
            report = write_int8(draft, found, options, pixels, Path(model), listener)
        stands = agreement.holds and (report is None or report.kept)
        files = _settle(draft, target) if stands else ()
    size = sum(file.stat().st_size for file in files)
    source = "the shipped photos" if data is None else os.fspath(data)
    findings = tuple(dict.fromkeys((*findings, *(report.findings if report else ()))))  # int8 may meet a file again
    return Export(to, files, size, agreement, source, time.monotonic() - started, report, findings)


def _pictures(data: str | os.PathLike[str]) -> list[Path]:
    """The pictures of a folder of any form, or of a table; a comparison needs no labels."""
    inputs = Inputs([data])
    inputs.count()
    return [one for one in inputs if isinstance(one, Path) and is_picture(one)]


def _target(to: str, out: str | os.PathLike[str]) -> Path:
    """Where the export goes, checked before the work is done."""
    if to not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(f"there is no format '{to}', it must be one of: {known}{nearest(str(to), SUFFIXES)}")
    path, ending = Path(out), SUFFIXES[to]
    if kind_of(path) == "folder" or not path.name:
        raise UsageError(f"--out is '{out}', which is a folder, and a file is wanted, with or without {ending}")
    if path.suffix != ending:
        if path.suffix in (*SUFFIXES.values(), ".safetensors", ".bin"):
            raise UsageError(f"the file of an export to {to} ends in {ending}, not {path.suffix}")
        path = path.with_name(path.name + ending)
    check_target(path)
    if to == "openvino":
        weights = path.with_suffix(".bin")
        check_target(weights)
        if weights.exists() and not path.exists():
            raise UsageError(
                f"{weights} is there already and belongs to no {path.name}; remove it or choose another --out"
            )
    if to == "onnx":
        check_onnx()
    return path


def _remove_old_drafts(target: Path) -> None:
    """Remove what exports to the same file left that were killed; a young one may be another export at work."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*{DRAFT}"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > OLD:
                shutil.rmtree(draft)


def _write_pt2(path: Path, info: BundleInfo, network: "Network") -> None:
    import torch

    program = to_pt2(network, Preprocessing.parse(info.preprocessing))
    program.example_inputs = None  # torch would store them as a pickle
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are views, which the gate sees to be right
        torch.export.save(program, path, extra_files={PT2_INFO: info.to_json()})


def _write_graph(write: Callable[..., None], convert: Callable[..., Any]) -> Callable[..., None]:
    def written(path: Path, info: BundleInfo, network: "Network") -> None:
        write(path, convert(network, Preprocessing.parse(info.preprocessing)), info)

    return written


def _run_artefact(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return run_on_all(open_artefact(path)[1], pixels)


def _run_pt2(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    import torch

    extra = {PT2_INFO: ""}
    program = torch.export.load(path, extra_files=extra)
    BundleInfo.from_json(extra[PT2_INFO])
    with torch.inference_mode():
        logits: NDArray[np.float32] = program.module()(torch.from_numpy(pixels)).numpy()
    return logits


_WRITERS: dict[str, Callable[[Path, BundleInfo, "Network"], None]] = {
    "openvino": _write_graph(write_openvino, to_openvino),
    "onnx": _write_graph(write_onnx, to_onnx),
    "pt2": _write_pt2,
}
_RUNNERS: dict[str, Callable[[Path, NDArray[np.uint8]], NDArray[np.float32]]] = {
    "openvino": _run_artefact,
    "onnx": _run_artefact,
    "pt2": _run_pt2,
}


def _settle(draft: Path, target: Path) -> tuple[Path, ...]:
    """Give the draft its name; of a pair the `.xml`, which names the `.bin` by its hash, comes last."""
    pairs = [(draft, target)]
    if draft.suffix == ".xml":
        pairs.insert(0, (draft.with_suffix(".bin"), target.with_suffix(".bin")))
    for source, end in pairs:
        with replacing(end) as temporary:
            source.replace(temporary)
    return tuple(end for _, end in reversed(pairs))
