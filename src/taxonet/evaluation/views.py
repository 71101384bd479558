"""Test-time augmentation: several views of each picture, and the mean of their probabilities.

The rule: a picture's probabilities are the arithmetic mean, in float64, of the calibrated probabilities of its views
(Krizhevsky et al. 2012, section 4.1). The first view is always the plain one, so that one pass tells both.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import UsageError, nearest
from taxonet.images import DEFAULT_LIMITS, Limits, Preprocessing, Source
from taxonet.images.colour import Mode
from taxonet.images.decode import Picture, decode_picture
from taxonet.images.geometry import CenterCrop, Geometry, Resize, Squash, apply_steps
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
        crops: dict[tuple[float, tuple[float, float]], NDArray[np.uint8]] = {}
        for ratio in dict.fromkeys(view.ratio for view in self.views):
            picture, geometry = self._decoded(source, ratio, limits)
            whole: Picture | None = None  # before the crop; the centre needs only what it keeps, as prediction does
            for place in dict.fromkeys(view.place for view in self.views):
                if place == PLACES[0]:
                    found = apply_steps(picture, geometry)
                else:
                    whole = whole or apply_steps(picture, geometry[:-1])
                    found = _corner(whole, geometry[-1], place)
                crops[ratio, place] = to_array(found.image)
        pixels = [(crops[view.ratio, view.place], view.flip) for view in self.views]
        return np.stack([crop[:, ::-1] if flip else crop for crop, flip in pixels])

    def _decoded(self, source: Source, ratio: float, limits: Limits) -> tuple[Picture, list[Geometry]]:
        scaled = replace(self.preprocessing, steps=self._scaled(ratio))
        exif = isinstance(scaled.steps[0], Exif)
        mode: Mode = "RGB" if scaled.channels == 3 else "L"
        picture = decode_picture(source, exif=exif, mode=mode, short_side=scaled.short_side, limits=limits)
        return picture, _geometry(scaled)

    def _scaled(self, ratio: float) -> tuple[Step, ...]:
        """The steps with the first size `ratio` times as large; the crop stays."""
        first = next((step for step in self.preprocessing.steps if isinstance(step, Geometry)), None)
        if ratio == 1.0 or first is None:
            return self.preprocessing.steps
        return tuple(step.scaled(ratio) if step is first else step for step in self.preprocessing.steps)


def _geometry(preprocessing: Preprocessing) -> list[Geometry]:
    return [step for step in preprocessing.steps if isinstance(step, Geometry)]


def _corner(picture: Picture, crop: Geometry, place: tuple[float, float]) -> Picture:
    """The crop at a corner; of a picture that is smaller than the crop the centre, as always."""
    assert isinstance(crop, CenterCrop)  # `parse` refuses corners of another preprocessing
    height, width = crop.size
    image = picture.image
    if image.width < width or image.height < height:
        return crop.apply(picture)
    left, upper = round(place[0] * (image.width - width)), round(place[1] * (image.height - height))
    return Picture.of(image.crop((left, upper, left + width, upper + height)))
