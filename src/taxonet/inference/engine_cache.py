"""The graphs that engines run, kept in the user's cache: the next start of the same weights needs no conversion.

A graph's name is a hash of all it depends on (network, options, preprocessing, weights, versions), so that none is ever
out of date; those that were not used for longest are removed when the cache is over its limit.
"""

import functools
import hashlib
import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxonet._version import __version__
from taxonet.errors import BundleError, TaxonetError
from taxonet.images import Preprocessing
from taxonet.inference.artefacts import open_artefact, write_onnx, write_openvino
from taxonet.inference.conversion import to_onnx, to_openvino
from taxonet.inference.engines.onnxruntime_engine import OnnxRuntimeEngine
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.machine import processor, thread_count
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.finding import Found
from taxonet.weights.hub import cache_folder

if TYPE_CHECKING:
    from taxonet.networks.layers import Network

LIMIT = 4 * 2**30  # bytes of graphs that are kept
GRAPH = 1  # goes up when conversion.py makes another graph of the same network
SUFFIX = {"openvino": ".xml", "onnxruntime": ".onnx"}

Opened = tuple[BundleInfo, OpenVinoEngine | OnnxRuntimeEngine]


def folder() -> Path:
    """Where graphs and choices are kept."""
    return cache_folder() / "engines"


def cached_graph(found: Found, digest: str, engine: str) -> Path:
    """Where the graph of these weights stands, once it was converted."""
    name = _hash(digest, engine, GRAPH, version("openvino"), version("torch"), __version__)
    return folder() / f"{found.info().variant}-{name}{SUFFIX[engine]}"


def cached_choice(found: Found, digest: str) -> Path:
    """Where it is noted which engine is the fastest for these weights on this machine."""
    libraries = [version(name) for name in ("openvino", "torch", "onnxruntime", "onnxscript")]
    name = _hash(digest, GRAPH, *libraries, __version__, processor(), thread_count())
    return folder() / f"{found.info().variant}-{name}.json"


def open_cached(path: Path) -> Opened | None:
    """The engine of a graph in the cache; None where there is none, or a damaged one."""
    try:
        opened = open_artefact(path)
        os.utime(path)
    except (TaxonetError, OSError):
        return None
    return opened


def open_converted(path: Path, engine: str, info: BundleInfo, network: "Network") -> Opened:
    """Convert the network, keep its graph at `path`, and open it; where the cache cannot be written, from memory."""
    preprocessing = Preprocessing.parse(info.preprocessing)
    graph = to_openvino(network, preprocessing) if engine == "openvino" else to_onnx(network, preprocessing)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (write_openvino if engine == "openvino" else write_onnx)(path, graph, info)
        _make_room(path)
    except (TaxonetError, OSError) as error:
        if engine != "openvino":
            raise BundleError(f"the cache {path.parent} cannot be written, and ONNX Runtime reads a file") from error
        return info, OpenVinoEngine(graph)
    return open_artefact(path)


def _make_room(newest: Path) -> None:
    files = [file for file in folder().iterdir() if file.suffix in (".xml", ".onnx")]
    sized = [(file.stat().st_mtime, file, _bytes(file)) for file in files]
    total = sum(size for _, _, size in sized)
    for _, file, size in sorted(sized):
        if total <= LIMIT:
            break
        if file != newest:
            file.unlink(missing_ok=True)
            file.with_suffix(".bin").unlink(missing_ok=True)
            total -= size


def _bytes(file: Path) -> int:
    weights = file.with_suffix(".bin")
    return file.stat().st_size + (weights.stat().st_size if weights.is_file() else 0)


def _hash(*parts: Any) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


@functools.cache
def version(package: str) -> str | None:
    """The version of an installed package, found without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
