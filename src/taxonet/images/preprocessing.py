"""The one preprocessing: a printable value such as

    exif | rgb | resize(256, bicubic) | center_crop(224) | normalize(imagenet)

stored in the bundle and used unchanged by evaluation, prediction, explanation, export and server.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxonet.errors import UsageError, nearest
from taxonet.images.colour import Mode
from taxonet.images.decode import Picture, Source, decode_picture
from taxonet.images.geometry import GEOMETRY, Box, Geometry, Size, apply_steps
from taxonet.images.notation import Step, parse_steps, show_steps
from taxonet.images.source import DEFAULT_LIMITS, Limits

Stats = tuple[float, ...]

# mean and standard deviation per channel, in units of 0 to 1
NORMALIZATIONS: dict[str, tuple[Stats, Stats]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision, timm and their heirs
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),  # TensorFlow's −1 to 1
    "cifar10": (  # Wide Residual Networks' code, mean and std in units of 0 to 255
        (125.3 / 255, 123.0 / 255, 113.9 / 255),
        (63.0 / 255, 62.1 / 255, 66.7 / 255),
    ),
    "unit": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
_ALIASES = {"none": "unit"}


@dataclass(frozen=True)
class Exif(Step):
    """Turn the picture upright by its EXIF orientation."""

    name: ClassVar[str] = "exif"


@dataclass(frozen=True)
class Rgb(Step):
    """Three channels."""

    name: ClassVar[str] = "rgb"
    mode: ClassVar[Mode] = "RGB"
    channels: ClassVar[int] = 3


@dataclass(frozen=True)
class Grey(Step):
    """One channel."""

    name: ClassVar[str] = "grey"
    mode: ClassVar[Mode] = "L"
    channels: ClassVar[int] = 1


@dataclass(frozen=True)
class Normalize(Step):
    """(x / 255 − mean) / std by the name of a set (imagenet, half, cifar10, unit) or by two tuples of numbers.

    For grey a set stands for the average of its means and the average of its deviations.
    """

    name: ClassVar[str] = "normalize"

    mean: str | Stats
    std: Stats | None = None

    def __post_init__(self) -> None:
        if isinstance(self.mean, str):
            object.__setattr__(self, "mean", _ALIASES.get(self.mean, self.mean))
            self.check_word("mean", NORMALIZATIONS)
            if self.std is not None:
                raise UsageError(f"normalize: the set {self.mean} brings its own std, give either a name or two tuples")
            return
        self._check_numbers("mean", -255.0, 255.0)
        self._check_numbers("std", 1e-6, 255.0)
        if self.std is None or len(self.mean) != len(self.std):
            raise UsageError("normalize: the mean and the std must have as many numbers as there are channels")

    def __str__(self) -> str:
        return f"normalize({self.mean})" if self.std is None else super().__str__()

    def stats(self, channels: int) -> tuple[Stats, Stats]:
        """Mean and standard deviation for 1 or 3 channels, in units of 0 to 1."""
        mean, std = NORMALIZATIONS[self.mean] if isinstance(self.mean, str) else (self.mean, self.std or ())
        if isinstance(self.mean, str) and channels == 1:
            return (fmean(mean),), (fmean(std),)
        if len(mean) != channels:
            raise UsageError(f"normalize has {len(mean)} means, the picture has {channels} channels")
        return mean, std

    def with_channels(self, channels: int) -> "Normalize":
        """The same for 1 channel (the average) or 3 (the same for each); a named set serves both."""
        if isinstance(self.mean, str) or self.std is None or len(self.mean) == channels:
            return self
        if channels == 1:
            return Normalize((fmean(self.mean),), (fmean(self.std),))
        return Normalize(self.mean * channels, self.std * channels)

    def _check_numbers(self, field: str, low: float, high: float) -> None:
        values = getattr(self, field)
        numbers = isinstance(values, (tuple, list)) and all(type(v) in (int, float) for v in values)
        if not numbers or len(values) not in (1, 3) or not all(low <= v <= high for v in values):
            names = ", ".join(NORMALIZATIONS)
            self.wrong(field, f"a name ({names}) or a tuple of 1 or 3 numbers from {low} to {high}")
        object.__setattr__(self, field, tuple(map(float, values)))


STEPS: dict[str, type[Step]] = {
    Exif.name: Exif,
    Rgb.name: Rgb,
    Grey.name: Grey,
    **GEOMETRY,
    Normalize.name: Normalize,
}


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to the network's input, as a value: printed by `str`, read by `parse`, hashable, comparable.

    Order of the steps: `exif` (optional) | `rgb` or `grey` | geometry | `normalize`. Geometry, sizes from 1 to 4096,
    filter bicubic (default), bilinear, lanczos, nearest, box or hamming:

    - `resize(size, filter)`: short side to size, aspect ratio kept
    - `squash(height, width, filter)`: exactly height × width
    - `fit(size, filter)`: long side to size, centred in size × size zeros
    - `center_crop(size)`, `center_crop(height, width)`: the middle, with zeros around a smaller picture
    - `pad(border)`: zeros on each side

    Raises UsageError for steps in a wrong order or number.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        ranks = [_rank(step) for step in self.steps]
        if ranks.count(1) != 1:
            raise UsageError(f"the preprocessing '{self}' must have exactly one of rgb and grey")
        if ranks.count(3) != 1:
            raise UsageError(f"the preprocessing '{self}' must have normalize exactly once, at the end")
        if ranks != sorted(ranks) or ranks.count(0) > 1:
            raise UsageError(
                f"the preprocessing '{self}' is out of order: exif | rgb or grey | sizes and crops | normalize"
            )
        self._normalize.stats(self.channels)

    def __str__(self) -> str:
        return show_steps(self.steps)

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Read the notation; raise UsageError, with the nearest name, for whatever it does not know."""
        return cls(parse_steps(text, STEPS, "preprocessing"))

    def __call__(self, source: Source, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.float32]:
        """Return the network's input (C,H,W) for one picture; raise ImageError when it cannot be read."""
        return self.normalized(self.pixels(source, limits))

    def pixels(self, source: Source, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
        """Return the uint8 pixels (H,W,C) that normalisation starts from; raise ImageError for what is no picture."""
        return to_array(apply_steps(self._picture(source, limits), self._geometry).image)

    def normalized(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return uint8 pixels (H,W,C) as float32 (C,H,W), or a batch (N,H,W,C) as (N,C,H,W).

        The operations, each rounded to float32: x / 255, then − mean, then / std.
        """
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or pixels.shape[-1] != self.channels:
            raise UsageError(
                f"the pixels must be uint8 of shape (H,W,{self.channels}) or (N,H,W,{self.channels}), "
                f"not {pixels.dtype} of shape {pixels.shape}"
            )
        *batch, height, width, channels = pixels.shape
        out = np.empty((*batch, channels, height, width), np.float32)
        for c, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            plane = out[..., c, :, :]
            np.divide(pixels[..., c], 255, out=plane, dtype=np.float32)
            plane -= np.float32(mean)
            plane /= np.float32(std)
        return out

    @property
    def output_size(self) -> Size:
        """(height, width) of every output; raise UsageError when it depends on the picture."""
        size: Size | None = None
        for step in self._geometry:
            size = step.output_size(size)
        if size is None:
            raise UsageError(f"the preprocessing '{self}' fixes no size; end it with center_crop, squash or fit")
        return size

    def seen(self, height: int, width: int) -> Box:
        """What the network sees of an upright picture of `height` × `width`: (left, upper, right, lower) in its pixels.

        Beyond the picture's border, where the box reaches it, the network sees zeros.
        """
        size, left, upper, x, y = (height, width), 0.0, 0.0, 1.0, 1.0  # x, y: pixels of the picture a pixel of now
        for step in self._geometry:
            box, after = step.covered(size), step.output_size(size) or size
            left, upper = left + box[0] * x, upper + box[1] * y
            x, y = x * (box[2] - box[0]) / after[1], y * (box[3] - box[1]) / after[0]
            size = after
        return left, upper, left + size[1] * x, upper + size[0] * y

    @property
    def turns_upright(self) -> bool:
        """Whether the EXIF orientation is applied."""
        return isinstance(self.steps[0], Exif)

    @property
    def channels(self) -> int:
        """3 for rgb, 1 for grey."""
        return self._colour.channels

    @property
    def mean(self) -> Stats:
        """The mean of each channel, in units of 0 to 1."""
        return self._normalize.stats(self.channels)[0]

    @property
    def std(self) -> Stats:
        """The standard deviation of each channel, in units of 0 to 1."""
        return self._normalize.stats(self.channels)[1]

    @property
    def short_side(self) -> int | None:
        """The hint for `decode`: the short side that the first step needs; None for full resolution."""
        return self._geometry[0].short_side if self._geometry else None

    def with_size(self, size: int) -> "Preprocessing":
        """The same for an output whose short side is `size`; every other size keeps its ratio to it, rounded."""
        ratio = size / min(self.output_size)
        steps = (step.scaled(ratio) if isinstance(step, Geometry) else step for step in self.steps)
        changed = replace(self, steps=tuple(steps))
        if min(changed.output_size) != size:
            raise UsageError(f"the preprocessing '{self}' cannot be brought to size {size}")
        return changed

    def with_channels(self, channels: int) -> "Preprocessing":
        """The same for 3 channels (rgb) or 1 (grey), the normalisation averaged or repeated."""
        if channels not in (1, 3):
            raise UsageError(f"the preprocessing has 1 or 3 channels, not {channels!r}")
        colour = Rgb() if channels == 3 else Grey()
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Normalize):
                steps.append(step.with_channels(channels))
            else:
                steps.append(colour if isinstance(step, (Rgb, Grey)) else step)
        return replace(self, steps=tuple(steps))

    def _picture(self, source: Source, limits: Limits) -> Picture:
        return decode_picture(
            source, exif=self.turns_upright, mode=self._colour.mode, short_side=self.short_side, limits=limits
        )

    @cached_property
    def _geometry(self) -> tuple[Geometry, ...]:
        return tuple(step for step in self.steps if isinstance(step, Geometry))

    @cached_property
    def _colour(self) -> Rgb | Grey:
        return next(step for step in self.steps if isinstance(step, (Rgb, Grey)))

    @cached_property
    def _normalize(self) -> Normalize:
        return next(step for step in self.steps if isinstance(step, Normalize))


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return a Pillow image of mode RGB or L as a writable uint8 array (H,W,C)."""
    pixels: NDArray[Any] = np.array(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _rank(step: Step) -> int:
    order = ((Exif,), (Rgb, Grey), (Geometry,), (Normalize,))
    rank = next((i for i, kinds in enumerate(order) if isinstance(step, kinds)), None)
    if rank is None:
        raise UsageError(f"'{step}' is not a step of preprocessing{nearest(str(step), STEPS)}")
    return rank
