"""Opening a model: which engine runs it, chosen by measuring where nobody says."""

import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import TaxonetError, UsageError, check_model
from taxonet.files import write_atomically
from taxonet.images import Preprocessing
from taxonet.inference.agreement import compare_logits, shipped
from taxonet.inference.artefacts import ENGINE_OF, is_artefact, open_artefact
from taxonet.inference.classifier import Classifier
from taxonet.inference.engine_cache import cached_choice, cached_graph, open_cached, open_converted
from taxonet.inference.engines import ENGINES, Engine, TorchEngine, check_engine, run_on_all
from taxonet.inference.engines.libraries import can_write_onnx
from taxonet.timing import in_turn
from taxonet.weights.finding import Found, find_model

ENVIRONMENT = "TAXONET_ENGINE"  # what "auto" means where it is set
ROUNDS = 3  # of measuring, in turn
SECONDS = 0.25  # of each engine in a round

log = logging.getLogger(__name__)


def load(model: str | os.PathLike[str], engine: str = "auto") -> Classifier:
    """Open a model: a bundle's path, an exported model, or the name of pretrained weights.

    Args:
        model: `"run/model.safetensors"`; an export, `"model.xml"` or `"model.onnx"`, which needs no torch; weights of
            the catalogue, `"densenet121.tv_in1k"`, which are brought where they are not here; or a network whose
            weights are installed or in the cache, `"efficientnet_lite0"`.
        engine: "torch", "openvino", "onnxruntime", or "auto": the fastest that answers as torch does, measured when
            these weights are first opened on this machine and kept in the cache; the environment variable
            TAXONET_ENGINE can say what "auto" means. An export has one engine.

    Raises:
        UsageError: an unknown name or engine, or an engine that is not installed.
        BundleError: the file is not a bundle, or its weights do not fit its network.
        DownloadError: the weights are not here and cannot be brought.
    """
    check_engine(engine)
    check_model(model)
    if is_artefact(model):
        return _open_export(Path(model), engine)
    if engine == "auto":
        engine = os.environ.get(ENVIRONMENT) or "auto"
        check_engine(engine)
    found = find_model(model)
    digest = "" if engine == "torch" else found.digest()
    if engine == "auto":
        engine, why = chosen_engine(found, digest)
        log.info("engine: %s (%s)", engine, why)
    return open_engine(found, engine, digest)


def chosen_engine(found: Found, digest: str) -> tuple[str, str]:
    """The engine for these weights on this machine and why, from the cache or else by measuring."""
    note = cached_choice(found, digest)
    try:
        known = json.loads(note.read_text("utf-8"))
        if known["engine"] in ENGINES:
            return known["engine"], f"{known['why']}; measured before"
    except (OSError, ValueError, TypeError, KeyError):
        pass
    log.warning("%s: measuring once which engine is the fastest here", found.info().variant)
    engine, why, figures = _measure(found, digest)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, json.dumps({"engine": engine, "why": why, **figures}, indent=2).encode())
    except (TaxonetError, OSError):
        log.info("the choice is not kept: %s cannot be written", note.parent)
    return engine, why


def open_engine(found: Found, engine: str, digest: str | None = None) -> Classifier:
    """A classifier of these weights with this very engine; what it converts is kept in the cache."""
    if engine != "torch":
        graph = cached_graph(found, found.digest() if digest is None else digest, engine)
        opened = open_cached(graph)
        if opened is not None:
            return Classifier(found.info(), opened[1])  # names and calibration are the bundle's, not the cache's
    from taxonet.weights.networks import open_found

    info, network = open_found(found)
    if engine == "torch":
        return Classifier(info, TorchEngine(network, info.preprocessing))
    return Classifier(info, open_converted(graph, engine, info, network)[1])


def _open_export(path: Path, engine: str) -> Classifier:
    own = ENGINE_OF[path.suffix]
    if engine not in ("auto", own):
        raise UsageError(
            f"{path.name} is a model for the engine {own}, {engine} cannot run it; open its bundle instead"
        )
    log.info("engine: %s (the file is for it)", own)
    return Classifier(*open_artefact(path))


def _measure(found: Found, digest: str) -> tuple[str, str, dict[str, Any]]:
    """The fastest engine that agrees with torch on the shipped photos, a sentence's worth of reasons, the figures."""
    reference = open_engine(found, "torch", digest).engine
    preprocessing = Preprocessing.parse(found.info().preprocessing)
    pixels = shipped(preprocessing)
    expected = reference.run(pixels)
    engines: dict[str, Engine] = {"torch": reference}
    agreements, refused = {}, []
    for name in ("openvino", *(["onnxruntime"] if can_write_onnx() else [])):
        try:
            engine = open_engine(found, name, digest).engine
            agreements[name] = compare_logits(expected, run_on_all(engine, pixels))
        except (TaxonetError, RuntimeError, OSError) as error:  # a candidate that fails costs only itself
            refused.append(f"{name} is not used: {error}")
            continue
        if agreements[name].holds:
            engines[name] = engine
        else:
            refused.append(f"{name} is not used: {agreements[name]}")
    rates = _rates(engines, pixels)
    best = max(rates, key=lambda name: rates[name])
    figures = {"images_per_second": rates, "agreement": {name: a.as_dict() for name, a in agreements.items()}}
    if best == "torch":
        why = "the fastest" if len(rates) > 1 else "the reference"
    else:
        why = f"{rates[best] / rates['torch']:.1f} times torch's rate, {agreements[best]}"
    return best, "; ".join([why, *refused]), figures


def _rates(engines: Mapping[str, Engine], pixels: NDArray[np.uint8]) -> dict[str, float]:
    """Pictures a second of each: the best of its turns, since whatever else runs only slows."""
    candidates = list(engines.values())

    def once(which: int, _: int) -> float:
        start, done = time.perf_counter(), 0
        while done == 0 or time.perf_counter() - start < SECONDS:
            run_on_all(candidates[which], pixels)
            done += len(pixels)
        return done / (time.perf_counter() - start)

    found = in_turn(len(candidates), once, ROUNDS, warm_up=0)
    return {name: round(max(rates), 2) for name, rates in zip(engines, found, strict=True)}
