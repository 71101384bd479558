"""From a float graph and labelled photos to an int8 graph whose accuracy was measured, or to the reason why not."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from taxonet.console import Listener, Silent
from taxonet.data import DataSet, Finding, read_data
from taxonet.data.trained_on import count_trained_on, warning
from taxonet.errors import UsageError, is_number
from taxonet.images import DEFAULT_LIMITS, Limits, Preprocessing
from taxonet.inference.engines.libraries import import_openvino
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.inference.int8 import graph
from taxonet.inference.int8.figures import Drop, logit_error
from taxonet.inference.int8.graph import Model
from taxonet.inference.int8.photos import CALIBRATION, Parts, Photos, at_most, divide, read
from taxonet.inference.int8.search import BATCH, SETTINGS, Found, Search, Setting, Trial, answers
from taxonet.inference.int8.silence import import_nncf
from taxonet.inference.int8.timing import Rate, measure_rates
from taxonet.weights.bundle import BundleInfo

MAX_DROP = 1.0  # percentage points


@dataclass(frozen=True, eq=False)
class Int8Report:
    """What int8 did to a network: its accuracy before and after, and whether it is kept within `max_drop` points.

    `drop` is None where no setting came so far that the measured photos were looked at. `agreement` is the share of all
    photos, those of the calibration among them, that both networks give the same class; `logit_error` the root mean
    square of the change of the logits relative to their deviation.
    """

    max_drop: float
    kept: bool
    setting: str | None  # the one that was taken
    trials: tuple[Trial, ...]
    drop: Drop | None
    photos: Mapping[str, int]  # by use: calibration, choosing, measured
    origin: str = ""
    seed: int = 0
    agreement: float | None = None
    logit_error: float | None = None
    layers: int = 0
    float_layers: tuple[str, ...] = ()
    not_executed: tuple[str, ...] = ()  # int8 in the graph, float on this machine
    rates: Mapping[str, Rate] = field(default_factory=dict)  # "float", "int8"
    sizes: Mapping[str, int] = field(default_factory=dict)  # bytes of the files, "float", "int8"
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def problem(self) -> str | None:
        """Why there is no int8 network, None where it is kept."""
        if self.kept:
            return None
        tried = "; ".join(f"{trial.setting}: {trial.problem}" for trial in self.trials)
        return f"int8 does not keep the accuracy, so nothing was written; tried were {tried}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "max_drop": self.max_drop,
            "kept": self.kept,
            "setting": self.setting,
            "trials": [trial.as_dict() for trial in self.trials],
            "drop": self.drop.as_dict() if self.drop else None,
            "photos": dict(self.photos),
            "origin": self.origin,
            "seed": self.seed,
            "agreement": self.agreement,
            "logit_error": self.logit_error,
            "layers": self.layers,
            "float_layers": list(self.float_layers),
            "not_executed": list(self.not_executed),
            "rates": {name: rate.as_dict() for name, rate in self.rates.items()},
            "sizes": dict(self.sizes),
            "notes": list(self.notes),
            "errors": [{"path": finding.path, "error": finding.reason} for finding in self.findings],
        }

    def record(self) -> dict[str, Any]:
        """What the artefact keeps of it."""
        drop = self.drop.as_dict() if self.drop else None
        return {
            "method": "NNCF post-training quantisation",
            "setting": self.setting,
            "photos": dict(self.photos),
            "seed": self.seed,
            "max_drop": self.max_drop,
            "drop": drop,
            "agreement": self.agreement,
            "float_layers": list(self.float_layers),
        }


def check_max_drop(points: float) -> None:
    """Refuse a largest drop that is no number of points."""
    if not is_number(points) or not -100 <= points <= 100:
        raise UsageError(f"max_drop is {points!r}, it must be in percentage points, from -100 (a gain) to 100")


def quantise(
    model: Model,
    info: BundleInfo,
    data: str | os.PathLike[str] | DataSet,
    *,
    max_drop: float = MAX_DROP,
    count: int = CALIBRATION,
    seed: int = 0,
    settings: Sequence[Setting] = SETTINGS,
    limits: Limits = DEFAULT_LIMITS,
    timed: bool = True,
    bundle: Path | None = None,
    listener: Listener | None = None,
) -> tuple[Model | None, Int8Report]:
    """Make an int8 graph and measure it; None where no setting keeps the accuracy.

    Args:
        model: pixels (N, H, W, C) uint8 → logits (N, classes), in float32.
        info: what the bundle says.
        data: labelled photos; where they have splits, `train` calibrates and `test` or `val` measures, else a third
            calibrates and the others measure.
        max_drop: percentage points of top-1 that may be lost on the measured photos.
        count: photos that calibrate, at most.
        seed: of the draw of these.
        settings: what is tried, in order.
        limits: of a photo.
        bundle: the model's file; the table of training photos beside it tells whether it has seen those that measure.
        timed: whether the report has the speed before and after, which takes some seconds.
        listener: is told how far it is.

    Raises:
        UsageError: NNCF is not installed, or `max_drop` is no number of points.
        DataError: the photos cannot be used.
    """
    check_max_drop(max_drop)
    import_nncf()
    listener = listener or Silent()
    preprocessing = Preprocessing.parse(info.preprocessing)
    parts = divide(data if isinstance(data, DataSet) else read_data(data), info.classes, count, seed)
    calibration, choosing, measured = _read(parts, info, preprocessing, limits, seed, listener)
    search = Search(model, calibration, choosing, measured, info.temperature, max_drop, listener)
    found, report = described(search, settings, timed)
    findings = (*parts.findings, *report.findings)
    seen = count_trained_on(bundle, parts.measured) if bundle else 0
    notes = (*report.notes, *filter(None, [warning(seen, len(parts.measured))]))
    return found, replace(report, origin=parts.origin, seed=seed, findings=findings, notes=notes)


def described(search: Search, settings: Sequence[Setting], timed: bool) -> tuple[Model | None, Int8Report]:
    """Run a search and describe what it ends with."""
    found = search.run(settings)
    report = _report(search, found)
    if found.model is None or found.engine is None:
        return None, report
    return found.model, _described(report, search, found.model, found.engine, timed)


def _read(
    parts: Parts, info: BundleInfo, preprocessing: Preprocessing, limits: Limits, seed: int, listener: Listener
) -> tuple[Photos, Photos, Photos]:
    def photos(samples: Any, title: str) -> Photos:
        some = at_most(samples, preprocessing, seed)
        return read(some, info.classes, preprocessing, limits, listener, title)

    measured = photos(parts.measured, "photos that measure")
    choosing = photos(parts.choosing, "photos that choose") if parts.separate else measured
    return photos(parts.calibration, "photos that calibrate"), choosing, measured


def _report(search: Search, found: Found) -> Int8Report:
    last = found.trials[-1]
    sets = {"calibration": search.calibration, "measured": search.measured}
    if search.choosing is not search.measured:
        sets["choosing"] = search.choosing
    kept = found.model is not None
    return Int8Report(
        max_drop=search.max_drop,
        kept=kept,
        setting=last.setting if kept else None,
        trials=found.trials,
        drop=last.measured,
        photos={name: len(photos) for name, photos in sets.items()},
        findings=tuple(finding for photos in sets.values() for finding in photos.findings),
    )


def _described(report: Int8Report, search: Search, model: Model, engine: OpenVinoEngine, timed: bool) -> Int8Report:
    """The report of a network that is kept: agreement on all photos, layers, speed, and what the photos cannot say."""
    parts = [search.measured.pixels, search.calibration.pixels]
    first = [search.before_measured, answers(search.engine, search.calibration.pixels, search.listener)]
    if search.choosing is not search.measured:
        parts.append(search.choosing.pixels)
        first.append(search.before)
    before, after = np.concatenate(first), np.concatenate([answers(engine, part, search.listener) for part in parts])
    layers = graph.layers(model)
    run = graph.executed(_runtime(model))
    rates = measure_rates([search.engine, engine], search.measured.pixels[:BATCH]) if timed else []
    return replace(
        report,
        agreement=float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        logit_error=logit_error(before, after),
        layers=len(layers),
        float_layers=tuple(layer.name for layer in layers if not layer.int8),
        not_executed=tuple(layer.name for layer in layers if layer.int8 and run.get(layer.node) not in graph.INTEGER),
        rates=dict(zip(("float", "int8"), rates, strict=timed)),
        notes=_notes(report),
    )


def _runtime(model: Model) -> Model:
    """What this machine's CPU makes of a graph."""
    compiled = import_openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled.get_runtime_model()


def _notes(report: Int8Report) -> tuple[str, ...]:
    drop, notes = report.drop, []
    assert drop is not None
    if drop.one_photo > report.max_drop >= 0:
        notes.append(
            f"one photo of {drop.n} weighs {drop.one_photo:.1f} points, so int8 would have been refused for one answer "
            "more lost than gained"
        )
    if drop.points_ci[1] > report.max_drop:
        notes.append(f"{drop.n} photos cannot rule out a loss of {drop.points_ci[1]:.1f} points (95 % interval)")
    separate = "choosing" in report.photos
    looks = sum((trial.measured if separate else trial.choosing) is not None for trial in report.trials)
    if looks > 1:
        notes.append(f"the measured photos had a part in the choice: {looks} settings were tried on them")
    return tuple(notes)
