"""Which photos calibrate an int8 network, which choose between settings, and which measure it: never the same ones.

Ranges of activations are taken from the calibration photos, so an accuracy on them would flatter. Where there is a test
split beside a validation split, settings are compared on the latter and the figures come from the former.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.data import ClassIndex, DataSet, Finding, Sample, read_ahead, sort_by_known
from taxonet.errors import DataError, ImageError
from taxonet.figures import counted
from taxonet.images import Limits, Preprocessing

CALIBRATION = 300  # photos; NNCF's own default, beyond which ranges do not move
MEASURED = 5000  # photos; a drop of one point is then known to about half a point
BYTES = 2**29  # of prepared photos of one part held in memory
LEAST = 2  # photos: one to calibrate with, one to measure on


@dataclass(frozen=True)
class Parts:
    """Samples by their use; `choosing` and `measured` are the same ones where there is only one held-out split."""

    calibration: tuple[Sample, ...]
    choosing: tuple[Sample, ...]
    measured: tuple[Sample, ...]
    findings: tuple[Finding, ...] = ()
    origin: str = ""  # where each part comes from, for people

    @property
    def separate(self) -> bool:
        """Whether the measured photos had no part in the choice of a setting."""
        return self.choosing is not self.measured


@dataclass(frozen=True, eq=False)
class Photos:
    """Prepared photos (n, H, W, C) uint8 with the index of the class of each (n,)."""

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    findings: tuple[Finding, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)


def divide(data: DataSet, classes: Sequence[str], count: int = CALIBRATION, seed: int = 0) -> Parts:
    """Decide which photos of a data set calibrate, choose and measure.

    Args:
        data: labelled photos, with or without splits.
        classes: of the model; photos of other classes become findings.
        count: how many photos calibrate, at most.
        seed: of the draw, which is balanced over classes.

    Raises:
        DataError: fewer than two photos are of classes that the model knows.
    """
    index, splits, findings = ClassIndex(classes), {}, list(data.findings)
    for name, samples in data.splits.items():
        known, unknown = sort_by_known(samples, index)
        findings += unknown
        if known:
            splits[name] = known
    total = sum(map(len, splits.values()))
    if total < LEAST:
        raise DataError(
            f"{data.source} holds {counted(total, 'photo')} of the model's classes ({_few(classes)}), its own are "
            f"{_few(data.classes)}, and int8 needs at least {LEAST} photos: one to calibrate with and one to measure on"
        )
    return replace(_divided(splits, count, seed), findings=tuple(findings))


def _few(classes: Sequence[str]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")


def _divided(splits: dict[str, list[Sample]], count: int, seed: int) -> Parts:
    if len(splits) == 1:
        ((name, samples),) = splits.items()
        few = min(count, max(1, len(samples) // 3))
        calibration = balanced(samples, few, seed)
        taken = {sample.path for sample in calibration}
        rest = tuple(sample for sample in samples if sample.path not in taken)
        return Parts(
            calibration, rest, rest, origin=f"a part of the photos calibrates, the others measure; split: {name}"
        )
    measured = next(name for name in ("test", "val", *splits) if name in splits)
    source = "train" if "train" in splits else next(name for name in splits if name != measured)
    choosing = "val" if "val" in splits and measured != "val" and source != "val" else measured
    held = tuple(splits[measured])
    chosen = held if choosing == measured else tuple(splits[choosing])
    chooses = f", settings chosen on {choosing}" if choosing != measured else ""
    origin = f"calibrated on {source}{chooses}, measured on {measured}"
    return Parts(balanced(splits[source], count, seed), chosen, held, origin=origin)


def balanced(samples: Sequence[Sample], count: int, seed: int) -> tuple[Sample, ...]:
    """At most `count` samples in random order, as even over the classes as they allow; the seed decides which."""
    rng = np.random.default_rng([seed, 0x1278])
    by_class: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: s.path):  # the order of a table does not matter
        by_class[sample.label].append(sample)
    for label in sorted(by_class):
        by_class[label] = [by_class[label][i] for i in rng.permutation(len(by_class[label]))]
    drawn: list[Sample] = []
    labels = sorted(by_class)
    while len(drawn) < min(count, len(samples)):  # a round takes one of every class that has one left
        for i in rng.permutation(len(labels)):
            if by_class[labels[i]] and len(drawn) < count:
                drawn.append(by_class[labels[i]].pop())
    return tuple(drawn)


def at_most(samples: tuple[Sample, ...], preprocessing: Preprocessing, seed: int) -> tuple[Sample, ...]:
    """As many of the samples as are worth their time and fit in memory, balanced over classes."""
    height, width = preprocessing.output_size
    count = min(MEASURED, max(LEAST, BYTES // (height * width * preprocessing.channels)))
    return samples if len(samples) <= count else balanced(samples, count, seed)


def read(
    samples: Sequence[Sample],
    classes: Sequence[str],
    preprocessing: Preprocessing,
    limits: Limits,
    listener: Listener,
    title: str,
) -> Photos:
    """Decode and prepare photos; those that cannot be read become findings.

    Raises:
        DataError: not one of them can be read.
    """
    index, pixels, targets, findings = ClassIndex(classes), [], [], []

    def prepared(sample: Sample) -> NDArray[np.uint8] | str:
        try:
            return preprocessing.pixels(sample.path, limits)
        except ImageError as error:
            return str(error)

    if not samples:
        raise DataError(f"no photos are left for '{title}': int8 needs other photos to calibrate than to measure")
    listener.start(title, len(samples))
    for done, (sample, found) in enumerate(zip(samples, read_ahead(prepared, samples), strict=True), start=1):
        listener.advance(done)
        if isinstance(found, str):
            findings.append(Finding(str(sample.path), found))
        else:
            pixels.append(found)
            targets.append(index[sample.label])
    listener.finish()
    if not pixels:
        raise DataError(f"not one of the {len(samples)} photos can be read, the first: {findings[0].reason}")
    return Photos(np.stack(pixels), np.array(targets), tuple(findings))
