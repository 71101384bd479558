"""Int8 by NNCF: the plainest setting first, then those that cost more time or speed, until the accuracy is kept.

Post-training quantisation (Jacob et al. 2018, arXiv 1712.05877; Nagel et al. 2021, arXiv 2106.08295): weights are
rounded to 8 bits a channel, activations to 8 bits a tensor with the ranges that the calibration photos show.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.data import read_ahead
from taxonet.figures import counted
from taxonet.inference.classifier import softmax
from taxonet.inference.engines import Engine
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.inference.int8 import graph
from taxonet.inference.int8.figures import Drop, compare
from taxonet.inference.int8.graph import Model
from taxonet.inference.int8.photos import Photos
from taxonet.inference.int8.silence import OutOfTimeError, quiet_nncf

Logits: TypeAlias = NDArray[np.float32]

SMOOTHING = 0.5  # SmoothQuant's alpha (Xiao et al. 2023, arXiv 2211.10438): half of the outliers move into the weights
SENSITIVE = 0.1  # share of the int8 layers that the setting of sensitive layers keeps float
LOOK = 16  # photos on which layers are ranked
ROUNDS = 30  # of accuracy-aware quantisation: layers it may give back
SECONDS = 900.0  # that a setting may take; accurate bias correction of a deep DenseNet takes longer than it is worth
BATCH = 16


@dataclass(frozen=True)
class Setting:
    """How NNCF is to quantise; `name` says it to people.

    NNCF cuts the ranges of activations at the mean of the photos' extremes; with `whole_ranges` they reach as far as
    the extremes. With None they are those of the setting before that lost least.
    """

    name: str
    whole_ranges: bool | None = False
    accurate_bias: bool = False
    smooth: bool = False
    sensitive_float: bool = False
    accuracy_aware: bool = False


SETTINGS = (
    Setting("asymmetric activations, fast bias correction"),
    Setting("whole ranges of activations", whole_ranges=True),
    Setting("accurate bias correction", None, accurate_bias=True),
    Setting("accurate bias correction, SmoothQuant of convolutions", None, accurate_bias=True, smooth=True),
    Setting("the most sensitive tenth of the layers float", None, accurate_bias=True, sensitive_float=True),
    Setting("accuracy-aware: layers given back to float one by one", None, accurate_bias=True, accuracy_aware=True),
)


@dataclass(frozen=True)
class Trial:
    """A setting that was tried: the drop on the photos that choose, and on those that measure where it got so far."""

    setting: str
    seconds: float
    problem: str | None  # why it does not do, None for the one that was taken
    float_layers: int = 0
    layers: int = 0
    choosing: Drop | None = None  # None where it was not finished
    measured: Drop | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search ends with; `model` and its engine are None where no setting kept the accuracy."""

    trials: tuple[Trial, ...]
    model: Model | None = None
    engine: OpenVinoEngine | None = None


class _UnrankedError(Exception):
    """There is nothing to tell which layers suffer from rounding."""


class Search:
    """One float graph, its photos, and the settings that are tried on it in turn.

    Args:
        model: the float graph.
        calibration: photos that the ranges of activations are taken from.
        choosing: photos on which settings are compared.
        measured: photos on which the one that is taken must hold too; the same ones where there are no others.
        temperature: of the bundle, for the log-loss.
        max_drop: percentage points of top-1.
        listener: is told of every setting.
    """

    def __init__(
        self,
        model: Model,
        calibration: Photos,
        choosing: Photos,
        measured: Photos,
        temperature: float,
        max_drop: float,
        listener: Listener,
    ) -> None:
        self.model = model
        self.engine = OpenVinoEngine(model)
        self.calibration = calibration
        self.choosing, self.measured = choosing, measured
        self.temperature, self.max_drop = temperature, max_drop
        self.listener = listener
        self.before = answers(self.engine, choosing.pixels, listener)
        self.before_measured = self.before if measured is choosing else answers(self.engine, measured.pixels, listener)

    def run(self, settings: Sequence[Setting] = SETTINGS) -> Found:
        """Try one setting after the other until one keeps the accuracy."""
        trials: list[Trial] = []
        last: Model | None = None  # of which layers are ranked; SmoothQuant's has other layers than the float graph
        least, whole = math.inf, False  # points lost so far at the best, and whether with whole ranges
        for wanted in settings:
            start = time.monotonic()
            setting = wanted if wanted.whole_ranges is not None else replace(wanted, whole_ranges=whole)
            try:
                model = self._quantise(setting, last)
            except (OutOfTimeError, _UnrankedError) as error:
                why = f"not finished in {SECONDS:.0f} s" if isinstance(error, OutOfTimeError) else str(error)
                trials.append(Trial(setting.name, time.monotonic() - start, why))
                self.listener.say(_sentence(trials[-1]))
                continue
            last = last if setting.smooth else model
            engine = OpenVinoEngine(model)
            trials.append(self._judge(setting, model, engine, start))
            self.listener.say(_sentence(trials[-1]))
            lost = trials[-1].choosing
            if lost and lost.points < least:
                least, whole = lost.points, bool(setting.whole_ranges)
            if trials[-1].problem is None:
                return Found(tuple(trials), model, engine)
        return Found(tuple(trials))

    def _judge(self, setting: Setting, model: Model, engine: OpenVinoEngine, start: float) -> Trial:
        layers = graph.layers(model)
        floats = sum(not layer.int8 for layer in layers)
        choosing = self._drop(engine, self.choosing, self.before)
        measured = problem = None
        if floats == len(layers):
            problem = "no layer is left in int8"
        elif not choosing.within(self.max_drop):
            problem = f"{_moved(choosing)}, {self._asked()}"
        else:
            same = self.measured is self.choosing
            measured = choosing if same else self._drop(engine, self.measured, self.before_measured)
            if not measured.within(self.max_drop):
                problem = f"on the measured photos {_moved(measured)}, {self._asked()}"
        return Trial(setting.name, time.monotonic() - start, problem, floats, len(layers), choosing, measured)

    def _asked(self) -> str:
        least = -self.max_drop
        return f"a gain of {least:g} is asked for" if least > 0 else f"more than {self.max_drop:g}"

    def _drop(self, engine: OpenVinoEngine, photos: Photos, before: Logits) -> Drop:
        return compare(before, answers(engine, photos.pixels, self.listener), photos.targets, self.temperature)

    def _quantise(self, setting: Setting, last: Model | None) -> Model:
        ignored = self._sensitive(last) if setting.sensitive_float else ()
        with quiet_nncf(self.listener, SECONDS) as nncf:
            options = {
                "target_device": nncf.TargetDevice.CPU,
                "preset": nncf.QuantizationPreset.MIXED,
                "subset_size": len(self.calibration),
                "fast_bias_correction": not setting.accurate_bias,
                # NNCF smooths only what it takes for a transformer
                "model_type": nncf.ModelType.TRANSFORMER if setting.smooth else None,
                "ignored_scope": nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None,
            }
            advanced = nncf.AdvancedQuantizationParameters()
            if setting.whole_ranges:
                ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet
                advanced.activations_range_estimator_params = ranges.MINMAX
            if setting.smooth:
                advanced.smooth_quant_alphas.convolution = SMOOTHING
            calibration = nncf.Dataset(_one_by_one(self.calibration.pixels))
            if setting.accuracy_aware:
                return self._accuracy_aware(nncf, calibration, options, advanced)
            return nncf.quantize(self.model, calibration, advanced_parameters=advanced, **options)

    def _accuracy_aware(self, nncf: Any, calibration: Any, options: dict[str, Any], advanced: Any) -> Model:
        """Layers go back to float, first the one that alone regains most; NNCF ranks them by what `validate` returns.

        NNCF can also rank by the logits, and then (3.4.0) begins with the layer that regains least. Shares of few
        photos tie, so the probability of the right class decides between equal ones: at most half a photo in all.
        """
        end, n = time.monotonic() + SECONDS, len(self.choosing)
        allowed = math.floor(self.max_drop / 100 * n + 1e-9)  # photos

        def answered(compiled: Any, photo: Any) -> Logits:
            if time.monotonic() > end:  # NNCF draws no bar while it validates, where the time is looked at otherwise
                raise OutOfTimeError
            return np.array(compiled(photo)[0])

        def validate(compiled: Any, photos: Any) -> tuple[float, None]:
            pairs = [(softmax(answered(compiled, photo))[0], target) for photo, target in photos]
            right = np.mean([probabilities.argmax() == target for probabilities, target in pairs])
            return float(right + 0.5 / n * np.mean([probabilities[target] for probabilities, target in pairs])), None

        photos = list(zip(_one_by_one(self.choosing.pixels), self.choosing.targets.tolist(), strict=True))
        return nncf.quantize_with_accuracy_control(
            self.model,
            calibration,
            nncf.Dataset(photos, lambda pair: pair[0]),
            validate,
            max_drop=(allowed + 0.5) / n,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_quantization_parameters=advanced,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=ROUNDS, num_ranking_workers=1
            ),
            **options,
        )

    def _sensitive(self, model: Model | None) -> tuple[str, ...]:
        """The nodes of the layers whose output suffers most from rounding, and of what feeds them."""
        if model is None:
            raise _UnrankedError("no setting before it was finished, of which layers could be ranked")
        lost = graph.losses(self.model, model, _one_by_one(self.calibration.pixels[:LOOK]))
        if not lost:
            raise _UnrankedError("the layers of this network cannot be ranked")
        worst = sorted(lost, key=lambda name: -lost[name])
        return graph.with_feeders(self.model, worst[: max(1, round(SENSITIVE * len(worst)))])


def answers(engine: Engine, pixels: NDArray[np.uint8], listener: Listener) -> Logits:
    """Logits (n, classes) of prepared photos (n, H, W, C), on all cores."""
    batches = [pixels[i : i + BATCH] for i in range(0, len(pixels), BATCH)]
    listener.start("answers", len(pixels))
    parts: list[Logits] = []
    for part in read_ahead(engine.run, batches, workers=engine.streams, ahead=2 * engine.streams):
        parts.append(part)
        listener.advance(min(len(pixels), BATCH * len(parts)))
    listener.finish()
    return np.concatenate(parts)


def _one_by_one(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Batches of one photo, of which NNCF takes the statistics."""
    return [pixels[place : place + 1] for place in range(len(pixels))]


def _moved(drop: Drop) -> str:
    return f"top-1 {'drops' if drop.points >= 0 else 'rises'} by {abs(drop.points):.2f} points"


def _sentence(trial: Trial) -> str:
    drop = trial.measured or trial.choosing
    counts = f" ({counted(drop.lost, 'photo')} lost, {drop.gained} gained of {drop.n})" if drop else ""
    kept = f"top-1 changes by {0.0 - drop.points:+.2f} points, kept" if drop and trial.problem is None else ""
    return f"int8, {trial.setting}: {trial.problem or kept}{counts}"
