"""The classifier: a bundle and an engine, from pictures to labels in the order given.

A picture that cannot be read gives an entry with `error` and never its neighbour's answer. Memory is bounded for any
number of pictures (`inference/pipeline.py`).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from taxonet.data.inputs import Inputs
from taxonet.data.shards import Member, Refused
from taxonet.errors import BundleError, UsageError, check_whole, is_number
from taxonet.images import DEFAULT_LIMITS, Limits, Preprocessing, Source
from taxonet.inference.engines import Engine, run_on_all
from taxonet.inference.pipeline import Road
from taxonet.weights.bundle import BundleInfo

ImageInput: TypeAlias = Source | Member | Refused
_SINGLE = (str, os.PathLike, bytes, bytearray, memoryview, np.ndarray, Member, Refused)
T = TypeVar("T")

BATCH = 32  # of an engine of one stream: beyond this the network gains nothing on a CPU
SHOWN = 60  # characters of a value that is refused
STREAM_BATCH = 4  # of a stream of one core: its caches hold no more


@dataclass(frozen=True)
class LabelScore:
    """One class of an answer: its name, its index in the model, its probability in [0, 1]."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The answer for one input: the likeliest classes in falling order, or the reason why there are none.

    `abstained` says "none of these": the likeliest class is less probable than the threshold. `predictions` then still
    holds the classes, and `label` is None.
    """

    path: str | None
    predictions: tuple[LabelScore, ...]
    error: str | None = None
    abstained: bool = False

    @property
    def label(self) -> str | None:
        """The likeliest class, None where the input could not be read or the model abstained."""
        return self.predictions[0].label if self.predictions and not self.abstained else None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `{"path", "predictions": [{"label", "index", "probability"}], "error", "abstained"}`."""
        scores = [vars(p) for p in self.predictions]
        return {"path": self.path, "predictions": scores, "error": self.error, "abstained": self.abstained}


@dataclass(frozen=True)
class Scored:
    """One input's class probabilities and the logits they come from, or the reason why it could not be read."""

    probabilities: NDArray[np.float32] | None
    error: str | None = None
    logits: NDArray[np.float32] | None = None


class Classifier:
    """A model ready to answer: `info` is what its bundle says, `engine` what runs it."""

    def __init__(self, info: BundleInfo, engine: Engine, limits: Limits = DEFAULT_LIMITS) -> None:
        self.info = info
        self.engine = engine
        self.limits = limits
        self.preprocessing = Preprocessing.parse(info.preprocessing)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names; a class's place is its index."""
        return self.info.classes

    def predict(
        self,
        images: ImageInput | Sequence[ImageInput],
        top: int = 5,
        batch_size: int | None = None,
        threshold: float | None = None,
    ) -> list[Prediction]:
        """Classify pictures.

        Args:
            images: paths, encoded bytes, open files, PIL images or uint8 arrays (H, W, 3); one or many.
            top: how many classes an answer names, the likeliest first.
            batch_size: how many pictures the engine sees at once; by default what suits it.
            threshold: probability from 0 to 1 under which an answer is "none of these"; by default the bundle's, 0
                always answers.

        Returns:
            One `Prediction` an input, in the order given; `.error` says why an input could not be read.
        """
        return list(self.predict_each(_as_list(images), top, batch_size, threshold))

    def predict_each(
        self,
        images: Iterable[ImageInput],
        top: int = 5,
        batch_size: int | None = None,
        threshold: float | None = None,
        skip: int = 0,
    ) -> Iterator[Prediction]:
        """Like `predict`, one answer after the other: for any number of pictures, in bounded memory.

        `skip` leaves out the answers of so many pictures at the beginning; the others are those of a run without it,
        to the last bit.
        """
        check_options(top, threshold)
        for image, scored in self.score_each(images, batch_size, skip):
            path = name_of(image)
            if scored.probabilities is None:
                yield Prediction(path, (), scored.error)
            else:
                yield self.answer(path, scored.probabilities, top, threshold)

    def answer(
        self, path: str | None, probabilities: NDArray[np.float32], top: int = 5, threshold: float | None = None
    ) -> Prediction:
        """The answer that class probabilities (classes,) give, as `predict` words it."""
        least = (self.info.threshold or 0.0) if threshold is None else threshold
        order = _likeliest(probabilities, top)
        found = tuple(LabelScore(self.classes[i], int(i), float(probabilities[i])) for i in order)
        return Prediction(path, found, abstained=found[0].probability < least)

    def predict_proba(
        self, images: ImageInput | Sequence[ImageInput], batch_size: int | None = None
    ) -> NDArray[np.float32]:
        """Class probabilities (n, classes), one row an input; a row of NaN where an input cannot be read."""
        inputs = _as_list(images)
        table = np.full((len(inputs), len(self.classes)), np.nan, np.float32)
        for row, (_, scored) in enumerate(self.score_each(inputs, batch_size)):
            if scored.probabilities is not None:
                table[row] = scored.probabilities
        return table

    def score_each(
        self, images: Iterable[ImageInput], batch_size: int | None = None, skip: int = 0
    ) -> Iterator[tuple[ImageInput, Scored]]:
        """Every input (but the first `skip`) with its probabilities or its error, in order."""
        for image, found in self.logits_each(images, self._read, batch_size, skip=skip):
            if isinstance(found, str):
                yield image, Scored(None, found)
            else:
                yield image, Scored(self.calibrated(found)[0], None, found[0])

    def logits_each(
        self,
        items: Iterable[T],
        read: Callable[[T], NDArray[np.uint8]],
        batch_size: int | None = None,
        rows: int = 1,
        skip: int = 0,
    ) -> Iterator[tuple[T, NDArray[np.float32] | str]]:
        """Every item with the logits of its prepared pictures, or the reason why it cannot be read, in order.

        Args:
            items: whatever `read` takes.
            read: gives an item's prepared pixels, (rows, H, W, C) uint8, on a thread; an ImageError is the item's.
            batch_size: how many pictures the engine sees at once; by default what suits it.
            rows: how many pictures an item has, so that what waits stays bounded.
            skip: how many items at the beginning get no answer.

        Returns:
            Pairs of an item and its logits (rows, classes) before the temperature, or the reason.
        """
        if batch_size is not None:
            check_whole("batch_size", batch_size, 1)
        engine = self.engine
        batch = batch_size or (BATCH if engine.streams == 1 else STREAM_BATCH)
        overlap = not getattr(engine, "uses_cores", True)
        return Road(read, self.run, engine.streams, batch, rows, overlap).answer(items, skip)

    def _read(self, image: ImageInput) -> NDArray[np.uint8]:
        source = image.read(self.limits) if isinstance(image, Member | Refused) else image
        return self.preprocessing.pixels(source, limits=self.limits)[None]

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes), before the temperature, of prepared pixels (N, H, W, C) uint8."""
        return _finite(run_on_all(self.engine, pixels))

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The same by one call of the engine: for one of several callers at a time."""
        return _finite(self.engine.run(pixels))

    def calibrated(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (N, classes) of logits (N, classes): the softmax after division by the bundle's temperature."""
        return softmax(logits, self.info.temperature)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities (N, classes) of prepared pixels (N, H, W, C) uint8."""
        return self.calibrated(self.logits(pixels))


def _finite(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(logits).all():
        raise BundleError("the model answers with NaN or infinity, its weights are broken")
    return logits


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities (N, classes) of logits (N, classes) divided by a temperature, in float32."""
    divided = logits / np.float32(temperature)
    exponents = np.exp(divided - divided.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float32] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def check_options(top: int, threshold: float | None) -> None:
    """Refuse what `predict` cannot do."""
    check_whole("top", top, 1)
    if threshold is not None and not (is_number(threshold) and 0 <= threshold <= 1):
        raise UsageError(f"threshold is {threshold!r}, it must be a probability from 0 to 1")


def name_of(image: ImageInput) -> str | None:
    """The path of an input, or its name in a shard; None for what has none."""
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return str(image) if isinstance(image, Member | Refused) else None


def _likeliest(probabilities: NDArray[np.float32], top: int) -> NDArray[np.intp]:
    """The places of the `top` largest, the largest first, the lower place first among equals."""
    if top >= len(probabilities):
        return np.argsort(-probabilities, kind="stable")
    least = np.partition(probabilities, -top)[-top]
    places = np.flatnonzero(probabilities >= least)  # few of many classes
    return places[np.argsort(-probabilities[places], kind="stable")[:top]]


def _as_list(images: ImageInput | Sequence[ImageInput]) -> list[ImageInput]:
    if isinstance(images, _SINGLE) or hasattr(images, "getbands"):
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return list(images)
        return [images]  # type: ignore[list-item]
    if hasattr(images, "read"):  # an open file
        return [images.read()]
    if not isinstance(images, Iterable) or isinstance(images, Mapping) or hasattr(images, "detach"):
        raise UsageError(f"{_short(images)} is no picture: give a path, bytes, a PIL image, a uint8 array or several")
    return list(images)


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def predict(
    paths: Sequence[str | os.PathLike[str]],
    *,
    model: str | os.PathLike[str] = "efficientnet_lite0",
    top: int = 5,
    engine: str = "auto",
    threshold: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Prediction]:
    """Classify files, whole folders, glob patterns, tables, lists and tar shards (`data.Inputs` tells them apart).

    Args:
        paths: what to classify; a folder gives its files in name order, what is no picture is answered with an error.
        model: a bundle's path or a catalogue name.
        top: how many classes an answer names.
        engine: what runs the model.
        threshold: probability under which an answer is "none of these"; by default the bundle's, 0 always answers.
        progress: called with (pictures done, pictures in all).

    Returns:
        One `Prediction` a file, in the order given; a file that cannot be read has `.error`.
    """
    from taxonet.inference.opening import load

    files = list(Inputs([paths] if isinstance(paths, str | os.PathLike) else paths))
    answers = []
    found = load(model, engine).predict_each(files, top, threshold=threshold)
    for done, answer in enumerate(found, start=1):
        answers.append(answer)
        if progress:
            progress(done, len(files))
    return answers
