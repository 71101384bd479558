"""From looks to findings: each picture by itself and against the others of its set, and the classes by their counts.

The thresholds are measured by `benchmarks/checking/thresholds.py`; a rule that compares with the rest of the set finds
nothing where the whole set is like that.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from taxonet.checking.issues import Issue
from taxonet.checking.looks import Look
from taxonet.data import Sample
from taxonet.figures import counted

SUFFIXES: Mapping[str, frozenset[str]] = {
    "JPEG": frozenset({".jpg", ".jpeg", ".jpe", ".jfif"}),
    "PNG": frozenset({".png"}),
    "WebP": frozenset({".webp"}),
    "GIF": frozenset({".gif"}),
    "BMP": frozenset({".bmp"}),
    "TIFF": frozenset({".tif", ".tiff"}),
}
BLANK_SPREAD = 16.0  # levels of 255 between the 1st and the 99th percentile of luma
DARK = 64.0  # level of 255 that the brightest hundredth does not reach
SMOOTH = 0.75  # share of the gradients' energy that a blur of one pixel leaves
HUGE_PIXELS = 50_000_000
TINY_SIDE, TINY_SHARE = 64, 0.25  # a short side below both: 64 pixels, and a quarter of the set's median
ASPECT, ASPECT_FACTOR = 3.0, 2.0  # long side to short side, and against the median of the set
GREY_SHARE = 0.2  # of the set: beyond it grey is no exception
FEW_PICTURES, FEW_SHARE = 10, 0.1  # of a class, and against the largest class


@dataclass(frozen=True)
class Typical:
    """What is usual in a set."""

    short_side: float
    aspect: float
    grey: float  # share

    @classmethod
    def of(cls, looks: Sequence[Look]) -> "Typical":
        """The medians over all pictures that can be read (at least one)."""
        sides = np.array([(min(x.width, x.height), max(x.width, x.height)) for x in looks], float)
        return cls(
            float(np.median(sides[:, 0])),
            float(np.median(sides[:, 1] / sides[:, 0])),
            float(np.mean([x.grey for x in looks])),
        )


def judge(name: str, sample: Sample, split: str, look: Look, typical: Typical) -> Iterator[Issue]:
    """The findings of one readable picture."""
    for kind, reason in _reasons(name, look, typical):
        yield Issue(kind, name, reason, sample.label, split)


def _reasons(name: str, look: Look, typical: Typical) -> Iterator[tuple[str, str]]:
    suffix = PurePath(name).suffix.lower()
    if suffix not in SUFFIXES[look.format]:
        yield "extension", f"its content is {look.format}, not '{suffix}'"
    yield from _shape(look, typical)
    yield from _light(look)
    if look.grey and typical.grey < GREY_SHARE and look.spread >= BLANK_SPREAD:
        yield "grey", f"it is grey, as {typical.grey:.1%} of the pictures"
    if look.orientation != 1:
        yield "rotated", f"its EXIF orientation is {look.orientation}"


def _shape(look: Look, typical: Typical) -> Iterator[tuple[str, str]]:
    size = f"{look.width}×{look.height} pixels"
    short, long = sorted((look.width, look.height))
    if look.width * look.height > HUGE_PIXELS:
        yield "huge", f"{size}, {look.width * look.height / 1e6:.0f} megapixels"
    if short < min(TINY_SIDE, TINY_SHARE * typical.short_side):
        yield "tiny", f"{size}, half of the pictures have a short side of {typical.short_side:.0f} or more"
    if long / short > max(ASPECT, ASPECT_FACTOR * typical.aspect):
        yield "aspect", f"{size}, {long / short:.1f} to 1; usual here is {typical.aspect:.1f} to 1"


def _light(look: Look) -> Iterator[tuple[str, str]]:
    """Blank, else dark, else blurred: what is blank is also dark or without edges, and one reason is enough."""
    if look.spread < BLANK_SPREAD:
        yield "blank", f"98 % of its pixels lie within {look.spread:.0f} of 255 levels"
    elif look.bright < DARK:
        yield "dark", f"99 % of its pixels are darker than {look.bright:.0f} of 255"
    elif look.smooth > SMOOTH:
        yield "blurred", f"a blur of one more pixel leaves {look.smooth:.0%} of its edges' energy, usual is a fifth"


def class_issues(splits: Mapping[str, Sequence[Sample]]) -> Iterator[Issue]:
    """A single class, classes with few training pictures, and classes that training or another split lacks."""
    trained = next((name for name in ("train", "all") if splits.get(name)), None)
    if trained is None:
        return
    counts = Counter(sample.label for sample in splits[trained])
    if len(counts) == 1:
        (label,) = counts
        yield Issue("one_class", label, f"'{label}' is the only class in {trained}", label, trained)
    largest, most = counts.most_common(1)[0]
    for label, count in sorted(counts.items()):
        against = f", the largest, '{largest}', has {most:,}" if count < most else ""
        if count < FEW_PICTURES or count < FEW_SHARE * most:
            reason = f"the class '{label}' has {counted(count, 'picture')}{against}"
            yield Issue("few_pictures", label, reason, label, trained)
    for split, samples in splits.items():
        for label, count in sorted(Counter(s.label for s in samples if s.label not in counts).items()):
            reason = f"the class '{label}' has {count:,} in {split} and none in {trained}"
            yield Issue("class_not_trained", label, reason, label, split)
    yield from unmeasured(counts, splits, trained)


def unmeasured(counts: Mapping[str, int], splits: Mapping[str, Sequence[Sample]], trained: str) -> Iterator[Issue]:
    """Classes that have `counts` training pictures and none in another split, which thus says nothing of them."""
    for split, samples in splits.items():
        if split == trained or not samples:
            continue
        for label in sorted(counts.keys() - {sample.label for sample in samples}):
            reason = f"the class '{label}' has {counts[label]:,} in {trained} and none in {split}"
            yield Issue("class_not_measured", label, reason, label, split)
