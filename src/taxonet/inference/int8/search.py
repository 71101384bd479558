"""Int8 by NNCF: the plainest setting first, then those that cost more time or speed, until the accuracy is kept.

Post-training quantisation (Jacob et al. 2018, arXiv 1712.05877; Nagel et al. 2021, arXiv 2106.08295): weights are rounded
to 8 bits a channel, activations to 8 bits a tensor with the ranges that the calibration photos show.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.inference.int8 import graph
from taxonet.inference.int8.figures import Drop, compare
from taxonet.inference.int8.photos import Photos
from taxonet.inference.int8.silence import quiet_nncf

if TYPE_CHECKING:
    import openvino as ov

Logits: TypeAlias = NDArray[np.float32]
Answer: TypeAlias = "Callable[[ov.Model, NDArray[np.uint8]], Logits]"

SMOOTHING = 0.5  # SmoothQuant's alpha (Xiao et al. 2023, arXiv 2211.10438): half of the outliers move into the weights
SENSITIVE = 0.1  # share of the int8 layers that the setting of sensitive layers keeps float
LOOK = 16  # photos on which layers are ranked
ROUNDS = 30  # of accuracy-aware quantisation: layers it may give back


@dataclass(frozen=True)
class Setting:
    """How NNCF is to quantise; `name` says it to people."""

    name: str
    accurate_bias: bool = False
    smooth: bool = False
    sensitive_float: bool = False
    accuracy_aware: bool = False


SETTINGS = (
    Setting("asymmetric activations, fast bias correction"),
    Setting("accurate bias correction", accurate_bias=True),
    Setting("accurate bias correction, SmoothQuant of convolutions", accurate_bias=True, smooth=True),
    Setting("the most sensitive tenth of the layers float", accurate_bias=True, sensitive_float=True),
    Setting("accuracy-aware: layers given back to float one by one", accurate_bias=True, accuracy_aware=True),
)


@dataclass(frozen=True)
class Trial:
    """A setting that was tried: the drop on the photos that choose, and on those that measure where it got so far."""

    setting: str
    seconds: float
    float_layers: int
    layers: int
    choosing: Drop
    measured: Drop | None
    problem: str | None = None  # why it does not do, None for the one that was taken

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search ends with; `model` is None where no setting kept the accuracy."""

    model: "ov.Model | None"
    trials: tuple[Trial, ...]


class Search:
    """One float graph, its photos, and the settings that are tried on it in turn."""

    def __init__(
        self,
        model: "ov.Model",
        calibration: NDArray[np.uint8],
        choosing: Photos,
        measured: Photos,
        answer: Answer,
        temperature: float,
        max_drop: float,
        listener: Listener,
    ) -> None:
        self.model = model
        self.calibration = calibration
        self.choosing, self.measured = choosing, measured
        self.answer = answer
        self.temperature = temperature
        self.max_drop = max_drop
        self.listener = listener
        self.before = answer(model, choosing.pixels)
        self.before_measured = self.before if measured is choosing else answer(model, measured.pixels)

    def run(self, settings: Sequence[Setting] = SETTINGS) -> Found:
        """Try one setting after the other until one keeps the accuracy."""
        trials: list[Trial] = []
        last: ov.Model | None = None  # that the next setting may learn from
        for setting in settings:
            start = time.monotonic()
            last = self._quantise(setting, last)
            trials.append(self._judge(setting, last, start))
            self.listener.say(_sentence(trials[-1], self.max_drop))
            if trials[-1].problem is None:
                return Found(last, tuple(trials))
        return Found(None, tuple(trials))

    def _judge(self, setting: Setting, model: "ov.Model", start: float) -> Trial:
        layers = graph.layers(model)
        floats = sum(not layer.int8 for layer in layers)
        choosing = self._drop(model, self.choosing, self.before)
        measured = problem = None
        if floats == len(layers):
            problem = "no layer is left in int8"
        elif not choosing.within(self.max_drop):
            problem = f"the accuracy drops by {choosing.points:.2f} points"
        else:
            same = self.measured is self.choosing
            measured = choosing if same else self._drop(model, self.measured, self.before_measured)
            if not measured.within(self.max_drop):
                problem = f"the accuracy on the measured photos drops by {measured.points:.2f} points"
        seconds = time.monotonic() - start
        return Trial(setting.name, seconds, floats, len(layers), choosing, measured, problem)

    def _drop(self, model: "ov.Model", photos: Photos, before: Logits) -> Drop:
        return compare(before, self.answer(model, photos.pixels), photos.targets, self.temperature)

    def _quantise(self, setting: Setting, last: "ov.Model | None") -> "ov.Model":
        ignored = self._sensitive(last) if setting.sensitive_float and last is not None else ()
        with quiet_nncf() as nncf:
            options = {
                "target_device": nncf.TargetDevice.CPU,
                "preset": nncf.QuantizationPreset.MIXED,
                "subset_size": len(self.calibration),
                "fast_bias_correction": not setting.accurate_bias,
                "ignored_scope": nncf.IgnoredScope(names=list(ignored), validate=False) if ignored else None,
            }
            advanced = nncf.AdvancedQuantizationParameters()
            if setting.smooth:
                advanced.smooth_quant_alphas.convolution = SMOOTHING
            calibration = nncf.Dataset(_Followed(self.calibration, self.listener, setting.name))
            if setting.accuracy_aware:
                found = self._accuracy_aware(nncf, calibration, options, advanced)
            else:
                found = nncf.quantize(self.model, calibration, advanced_parameters=advanced, **options)
        self.listener.finish()
        return found

    def _accuracy_aware(self, nncf: Any, calibration: Any, options: dict[str, Any], advanced: Any) -> "ov.Model":
        pixels = self.choosing.pixels
        validation = nncf.Dataset(_Followed(pixels, self.listener, "accuracy-aware: measuring layers"))
        targets = self.choosing.targets

        def validate(compiled: Any, photos: Any) -> tuple[float, list[list[Logits]]]:
            logits = [np.array(compiled(photo)[0]) for photo in photos]  # in order; NNCF may ask for a part of them
            right = np.concatenate(logits).argmax(axis=1) == targets[: len(logits)]
            return float(right.mean()), [[row] for row in logits]

        return nncf.quantize_with_accuracy_control(
            self.model,
            calibration,
            validation,
            validate,
            max_drop=self.max_drop / 100,
            drop_type=nncf.DropType.ABSOLUTE,
            advanced_quantization_parameters=advanced,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                max_num_iterations=ROUNDS, num_ranking_workers=1
            ),
            **options,
        )

    def _sensitive(self, model: "ov.Model") -> tuple[str, ...]:
        """The nodes whose input loses most when it is rounded."""
        parts = (self.calibration[i : i + 1] for i in range(min(LOOK, len(self.calibration))))
        lost = graph.losses(model, parts)
        worst = sorted(lost, key=lambda name: -lost[name])
        return tuple(worst[: max(1, round(SENSITIVE * len(worst)))])


class _Followed:
    """Photos one by one, as NNCF wants them, with a bar that shows how far it is through them."""

    def __init__(self, pixels: NDArray[np.uint8], listener: Listener, title: str) -> None:
        self.pixels, self.listener, self.title = pixels, listener, title

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, place: int) -> NDArray[np.uint8]:
        if place >= len(self.pixels):
            raise IndexError(place)
        return self.pixels[place : place + 1]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        self.listener.start(self.title, len(self.pixels))
        for place in range(len(self.pixels)):
            self.listener.advance(place)
            yield self[place]
        self.listener.advance(len(self.pixels))


def _sentence(trial: Trial, max_drop: float) -> str:
    drop = trial.measured or trial.choosing
    verdict = f"{trial.problem}, more than {max_drop:g}" if trial.problem and drop.points > max_drop else trial.problem
    lost = f"{drop.lost} photos lost, {drop.gained} gained of {drop.n}"
    return f"int8, {trial.setting}: {verdict or f'the accuracy drops by {drop.points:.2f} points'} ({lost})"
