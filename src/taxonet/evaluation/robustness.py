"""A one-minute check: how accuracy holds when the user's own photos get noisy, blurred, dark, compressed or turned."""

import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxonet.console import Listener, Silent
from taxonet.data import Sample
from taxonet.errors import DataError, UsageError
from taxonet.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Corruption
from taxonet.images import DEFAULT_LIMITS, Limits, Preprocessing, Source
from taxonet.images.colour import Mode
from taxonet.images.decode import decode_picture
from taxonet.images.geometry import Geometry, Resize
from taxonet.images.preprocessing import Exif
from taxonet.inference import Classifier
from taxonet.intervals import Interval, bootstrap, wilson

SECONDS = 60.0
FEWEST = 20  # pictures, where there are so many: fewer tell nothing, so a slow network takes longer
TRIAL = 2  # pictures that are timed first
SEED = 0xB0B


@dataclass(frozen=True)
class CorruptedScore:
    """Accuracy under one corruption at one severity, with Wilson's 95 % interval."""

    corruption: str
    severity: int
    strength: float
    top1: float
    top1_ci: Interval


@dataclass(frozen=True)
class Robustness:
    """Accuracy of `n` pictures under every corruption and severity.

    `mean_corruption_accuracy` is the mean over corruptions and severities, its interval a 95 % bootstrap over pictures;
    `clean` is the accuracy of the same pictures as they are. `sampling` says which they were.
    """

    n: int
    of: int
    clean: float
    clean_ci: Interval
    mean_corruption_accuracy: float
    mean_corruption_accuracy_ci: Interval | None
    scores: tuple[CorruptedScore, ...]
    sampling: str
    seconds: float
    example: Sample

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return vars(self) | {"scores": [vars(score) for score in self.scores], "example": str(self.example.path)}

    def of_corruption(self, name: str) -> list[CorruptedScore]:
        """The scores of one corruption, mildest first."""
        return [score for score in self.scores if score.corruption == name]


def conditions() -> list[tuple[Corruption, int]]:
    """Every corruption at every severity."""
    return [(corruption, severity) for corruption in CORRUPTIONS for severity in SEVERITIES]


def stratified_order(labels: Sequence[str], seed: int = SEED) -> list[int]:
    """The places of all samples, so that every beginning of the list holds the classes as evenly as it can."""
    rng = np.random.default_rng(seed)
    places: dict[str, list[int]] = {}
    for place in rng.permutation(len(labels)):
        places.setdefault(labels[place], []).append(int(place))
    order = [(rank, label, place) for label, theirs in places.items() for rank, place in enumerate(theirs)]
    return [place for _, _, place in sorted(order)]


def working_copy(source: Source, preprocessing: Preprocessing, limits: Limits = DEFAULT_LIMITS) -> Image.Image:
    """The photo as it is corrupted: decoded, and at the size that the preprocessing resizes to.

    A corruption of the full photo would depend on its megapixels: noise on 12 of them is gone after the resize. A
    preprocessing that starts with `resize` finds its size already there, so that a photo that is not corrupted is
    answered as always, up to the rounding of a resize that computes only the crop; before another
    resize a larger photo is reduced to the short side that it needs.
    """
    exif, side = isinstance(preprocessing.steps[0], Exif), preprocessing.short_side
    mode: Mode = "RGB" if preprocessing.channels == 3 else "L"
    picture = decode_picture(source, exif=exif, mode=mode, short_side=side, limits=limits)
    first = next((step for step in preprocessing.steps if isinstance(step, Geometry)), None)
    if isinstance(first, Resize) and side is not None:
        return first.apply(picture).image
    if side is not None and min(picture.image.size) > side:
        return Resize(side).apply(picture).image
    return picture.image


def check_robustness(
    classifier: Classifier,
    samples: Sequence[Sample],
    *,
    pictures: int | None = None,
    seconds: float = SECONDS,
    listener: Listener | None = None,
) -> Robustness:
    """Corrupt pictures in every way and at every severity, and see how many answers stay right.

    Args:
        classifier: what answers.
        samples: readable pictures of classes that the classifier knows.
        pictures: how many are taken; by default as many as fit `seconds`, by timing the first ones, at least 20.
        seconds: about how long it may take.
        listener: is told of the progress.

    Raises:
        UsageError: `pictures` is below 1.
        DataError: none of the pictures can be read.
    """
    if pictures is not None and pictures < 1:
        raise UsageError(f"robustness_pictures is {pictures}, it must be at least 1")
    listener, started = listener or Silent(), time.monotonic()
    ordered = [samples[place] for place in stratified_order([sample.label for sample in samples])]
    rows = list(_answers(classifier, ordered[:TRIAL] if pictures is None else ordered[:pictures], listener))
    if pictures is None:
        pace = (time.monotonic() - started) / max(1, min(TRIAL, len(ordered)))
        pictures = min(len(ordered), max(FEWEST, int(seconds / pace)))
        rows += _answers(classifier, ordered[TRIAL:pictures], listener)
    if not rows:
        raise DataError("not one of the pictures can be read for the check of robustness")
    return _summary(classifier, samples, rows, time.monotonic() - started)


Row = tuple[Sample, NDArray[np.bool_]]  # a picture, and whether its answer was right: clean, then every condition


def _answers(classifier: Classifier, samples: Sequence[Sample], listener: Listener) -> Iterator[Row]:
    index = {name: place for place, name in enumerate(classifier.classes)}
    reader = _reader(classifier)
    listener.start("corrupted pictures", len(samples))
    rows = 1 + len(CORRUPTIONS) * len(SEVERITIES)
    for done, (sample, logits) in enumerate(classifier.logits_each(samples, reader, rows=rows), start=1):
        listener.advance(done)
        if not isinstance(logits, str):  # it was readable a moment ago
            yield sample, logits.argmax(axis=1) == index[sample.label]
    listener.finish()


def _reader(classifier: Classifier) -> Callable[[Sample], NDArray[np.uint8]]:
    def read(sample: Sample) -> NDArray[np.uint8]:
        image = working_copy(sample.path, classifier.preprocessing, classifier.limits)
        pictures = [image, *corrupted(image, sample.path.name)]
        return np.stack([classifier.preprocessing.pixels(picture) for picture in pictures])

    return read


def corrupted(image: Image.Image, name: str) -> Iterator[Image.Image]:
    """A picture under every condition; the chance in it is a function of the file's name."""
    own = zlib.crc32(name.encode(errors="surrogateescape"))
    for number, (corruption, severity) in enumerate(conditions()):
        yield corruption.apply(image, severity, (SEED, own, number))


def _summary(classifier: Classifier, samples: Sequence[Sample], rows: Sequence[Row], seconds: float) -> Robustness:
    table = np.array([right for _, right in rows])
    clean, n = table[:, 0], len(table)
    shares = table[:, 1:].mean(axis=1)  # of the conditions under which a picture is answered right
    interval = bootstrap(lambda places: {"mean": float(shares[places].mean())}, n, ("mean",))["mean"]
    scores = tuple(
        _score(corruption, severity, column)
        for (corruption, severity), column in zip(conditions(), table[:, 1:].T, strict=True)
    )
    return Robustness(
        n=n,
        of=len(samples),
        clean=float(clean.mean()),
        clean_ci=wilson(int(clean.sum()), n) or (0.0, 1.0),
        mean_corruption_accuracy=float(shares.mean()),
        mean_corruption_accuracy_ci=interval,
        scores=scores,
        sampling=_sampling(n, samples, [sample.label for sample, _ in rows]),
        seconds=seconds,
        example=next((sample for (sample, right) in rows if right[0]), rows[0][0]),
    )


def _score(corruption: Corruption, severity: int, right: NDArray[np.bool_]) -> CorruptedScore:
    interval = wilson(int(right.sum()), len(right)) or (0.0, 1.0)
    strength = corruption.strengths[severity - 1]
    return CorruptedScore(corruption.name, severity, strength, float(right.mean()), interval)


def _sampling(n: int, samples: Sequence[Sample], labels: Sequence[str]) -> str:
    if n == len(samples):
        return f"all {n} pictures"
    counts = [labels.count(label) for label in set(labels)]
    each = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    classes = len({sample.label for sample in samples})
    some = "" if len(counts) == classes else f" of {len(counts)} of {classes} classes"
    return f"{n} of {len(samples)} pictures, {each} a class{some}, drawn with a fixed seed"
