"""Test-time augmentation: several views of each picture, and the mean of their probabilities.

The rule: a picture's probabilities are the arithmetic mean, in float64, of the calibrated probabilities of its views
(Krizhevsky et al. 2012, section 4.1). The first view is always the plain one, so that one pass tells both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import UsageError, nearest
from taxonet.images import DEFAULT_LIMITS, Limits, Preprocessing, Source
from taxonet.images.colour import Mode
from taxonet.images.decode import Picture, decode_picture
from taxonet.images.geometry import CenterCrop, Geometry, Resize, Squash
from taxonet.images.notation import Step
from taxonet.images.preprocessing import Exif, to_array

FLIP, CROPS, SCALES = "flip", "crops", "scales"
RATIOS = (1.0, 1.125, 1.25)  # of the short side before the crop; the first three of Szegedy et al. 2015, section 7
# the middle, then the corners: left or right, top or bottom, as a share of the room
PLACES = ((0.5, 0.5), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))


@dataclass(frozen=True)
class View:
    """One way to look at a picture: the size before the crop, where the crop lies, and whether it is mirrored."""

    ratio: float = 1.0
    place: tuple[float, float] = PLACES[0]
    flip: bool = False


@dataclass(frozen=True)
class Views:
    """The views of a preprocessing that a specification such as "flip" or "flip,crops" means."""

    name: str
    preprocessing: Preprocessing
    views: tuple[View, ...]

    def __len__(self) -> int:
        return len(self.views)

    @classmethod
    def parse(cls, text: str, preprocessing: Preprocessing) -> "Views":
        """Read a specification: flip (2 views), crops (5), scales (3), or several with commas, which multiply.

        Raises UsageError for another word, or for crops and scales of a preprocessing that has no resize and crop.
        """
        words = [word.strip() for word in text.split(",")]
        for word in words:
            if word not in (FLIP, CROPS, SCALES):
                hint = nearest(word, (FLIP, CROPS, SCALES))
                raise UsageError(f"there is no view '{word}', it must be flip, crops or scales, or several{hint}")
        geometry = _geometry(preprocessing)
        whole = geometry and isinstance(geometry[0], Resize | Squash) and isinstance(geometry[-1], CenterCrop)
        if not whole and {CROPS, SCALES} & set(words):
            raise UsageError(
                f"crops and scales need a preprocessing that resizes and then crops the centre, '{preprocessing}' "
                "does not; --tta flip serves every one"
            )
        places = PLACES if CROPS in words else PLACES[:1]
        ratios = RATIOS if SCALES in words else RATIOS[:1]
        flips = (False, True) if FLIP in words else (False,)
        views = tuple(View(ratio, place, flip) for ratio, place, flip in product(ratios, places, flips))
        return cls(",".join(w for w in (FLIP, CROPS, SCALES) if w in words), preprocessing, views)

    def pixels(self, source: Source, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """The prepared pixels of all views, (views, H, W, C) uint8; raises ImageError where it cannot be read."""
        prepared = {ratio: self._before_crop(source, ratio, limits) for ratio in {v.ratio for v in self.views}}
        rows = []
        for view in self.views:
            pixels = to_array(_cropped(prepared[view.ratio], self.preprocessing, view.place).image)
            rows.append(pixels[:, ::-1] if view.flip else pixels)
        return np.stack(rows)

    def _before_crop(self, source: Source, ratio: float, limits: Limits) -> Picture:
        scaled = replace(self.preprocessing, steps=self._scaled(ratio))
        exif = isinstance(scaled.steps[0], Exif)
        mode: Mode = "RGB" if scaled.channels == 3 else "L"
        picture = decode_picture(source, exif=exif, mode=mode, short_side=scaled.short_side, limits=limits)
        geometry = _geometry(scaled)
        for step in geometry[:-1] if _crop_of(geometry) else geometry:
            picture = step.apply(picture)
        return picture

    def _scaled(self, ratio: float) -> tuple[Step, ...]:
        """The steps with the first size `ratio` times as large; the crop stays."""
        first = next((step for step in self.preprocessing.steps if isinstance(step, Geometry)), None)
        if ratio == 1.0 or first is None:
            return self.preprocessing.steps
        return tuple(step.scaled(ratio) if step is first else step for step in self.preprocessing.steps)


def _geometry(preprocessing: Preprocessing) -> list[Geometry]:
    return [step for step in preprocessing.steps if isinstance(step, Geometry)]


def _crop_of(geometry: Sequence[Geometry]) -> CenterCrop | None:
    return geometry[-1] if geometry and isinstance(geometry[-1], CenterCrop) else None


def _cropped(picture: Picture, preprocessing: Preprocessing, place: tuple[float, float]) -> Picture:
    """The crop of the preprocessing, at its centre or at a corner; a smaller picture is centred as always."""
    crop = _crop_of(_geometry(preprocessing))
    if crop is None:
        return picture
    height, width = crop.size
    image = picture.image
    if place == PLACES[0] or image.width < width or image.height < height:
        return crop.apply(picture)
    left, upper = round(place[0] * (image.width - width)), round(place[1] * (image.height - height))
    return Picture.of(image.crop((left, upper, left + width, upper + height)))
