"""Training-time augmentation, in the notation of preprocessing:

    random_resized_crop(224, scale=(0.35, 1.0)) | flip | color_jitter(0.2) | erase(0.1)

Every step is a pure function of a picture and a numpy Generator, so that a run can be resumed bit for bit.
"""

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from taxonet.errors import UsageError
from taxonet.images.decode import Picture
from taxonet.images.geometry import FILTERS, GEOMETRY, MAX_SIDE, Geometry, crop_offset
from taxonet.images.notation import Step, parse_steps, show_steps
from taxonet.images.preprocessing import to_array
from taxonet.images.rand_augment import STRONGEST, rand_augment
from taxonet.images.trivial_augment import trivial_augment

Box = tuple[int, int, int, int]  # left, upper, right, lower

_ATTEMPTS = 10  # draws before a box that fits is given up, as in Inception's code and torchvision


@dataclass(frozen=True)
class RandomStep(Step):
    """Base of the steps on a Pillow image of mode RGB or L."""

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image after this step, which draws from `rng` and nothing else."""
        raise NotImplementedError

    def scaled(self, ratio: float) -> Self:
        """The step for pictures that come out `ratio` times as large; most do not depend on the size."""
        return self


@dataclass(frozen=True)
class RandomResizedCrop(RandomStep):
    """Cut out a part of random area and aspect ratio and bring it to `size` × `size`.

    `scale`: share of the area; `ratio`: width / height, drawn evenly in its logarithm (Szegedy et al. 2015,
    arXiv:1409.4842, section 6; defaults of torchvision). The resize reads the part in place, so that its filter may
    see a pixel beyond the edge.
    """

    name: ClassVar[str] = "random_resized_crop"

    size: int
    scale: tuple[float, float] = field(default=(0.08, 1.0), kw_only=True)
    ratio: tuple[float, float] = field(default=(3 / 4, 4 / 3), kw_only=True)
    filter: str = field(default="bicubic", kw_only=True)

    def __post_init__(self) -> None:
        self.check_whole("size", 1, MAX_SIDE)
        self.check_interval("scale", 0.0, 1.0)
        self.check_interval("ratio", 0.01, 100.0)
        self.check_word("filter", FILTERS)

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a random part at `size` × `size`."""
        box = self.box(image.width, image.height, rng)
        return image.resize((self.size, self.size), FILTERS[self.filter], box=box)

    def scaled(self, ratio: float) -> Self:
        """The same part, brought to another size."""
        return replace(self, size=max(1, round(self.size * ratio)))

    def box(self, width: int, height: int, rng: np.random.Generator) -> Box:
        """Draw the part; when no draw fits, the largest central part whose ratio is allowed."""
        for _ in range(_ATTEMPTS):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return left, upper, left + w, upper + h
        w = max(1, min(width, round(height * self.ratio[1])))
        h = max(1, min(height, round(width / self.ratio[0])))
        left, upper = (width - w) // 2, (height - h) // 2
        return left, upper, left + w, upper + h


@dataclass(frozen=True)
class RandomCrop(RandomStep):
    """Pad with zeros on each side, then cut `size` × `size` out at random: CIFAR's form (Lee et al. 2015).

    A picture too small even then is centred in zeros.
    """

    name: ClassVar[str] = "random_crop"

    size: int
    padding: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        self.check_whole("size", 1, MAX_SIDE)
        self.check_whole("padding", 0, MAX_SIDE)

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return a random `size` × `size` part of the padded picture."""
        left, upper = self._offset(image.width, rng), self._offset(image.height, rng)
        return image.crop((left, upper, left + self.size, upper + self.size))

    def scaled(self, ratio: float) -> Self:
        """Size and padding together."""
        return replace(self, size=max(1, round(self.size * ratio)), padding=round(self.padding * ratio))

    def _offset(self, side: int, rng: np.random.Generator) -> int:
        slack = side + 2 * self.padding - self.size
        return int(rng.integers(slack + 1)) - self.padding if slack >= 0 else crop_offset(side, self.size)


@dataclass(frozen=True)
class Flip(RandomStep):
    """Mirror left and right with a probability."""

    name: ClassVar[str] = "flip"
    method: ClassVar[Image.Transpose] = Image.Transpose.FLIP_LEFT_RIGHT

    probability: float = 0.5

    def __post_init__(self) -> None:
        self.check_number("probability", 0.0, 1.0)

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image or its mirror image."""
        return image.transpose(self.method) if rng.random() < self.probability else image


@dataclass(frozen=True)
class VerticalFlip(Flip):
    """Mirror top and bottom with a probability."""

    name: ClassVar[str] = "vertical_flip"
    method: ClassVar[Image.Transpose] = Image.Transpose.FLIP_TOP_BOTTOM


@dataclass(frozen=True)
class ColorJitter(RandomStep):
    """Brightness, contrast and saturation, each by a factor from 1 − strength to 1 + strength, in random order."""

    name: ClassVar[str] = "color_jitter"

    strength: float

    def __post_init__(self) -> None:
        self.check_number("strength", 0.0, 1.0)

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image with its colours changed; grey has no saturation."""
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        factors = rng.uniform(1 - self.strength, 1 + self.strength, len(enhancers))
        for i in rng.permutation(len(enhancers)):
            image = enhancers[i](image).enhance(float(factors[i]))
        return image


@dataclass(frozen=True)
class TrivialAugment(RandomStep):
    """One random operation of random strength: TrivialAugment, wide (arXiv:2103.10158)."""

    name: ClassVar[str] = "trivial_augment"

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image after the operation."""
        return trivial_augment(image, rng)


@dataclass(frozen=True)
class RandAugment(RandomStep):
    """`count` random operations of one strength: RandAugment's N and M (arXiv:1909.13719).

    The paper's ResNet-50 has rand_augment(2, 9), its EfficientNet-B7 rand_augment(2, 28); 10 is the end of
    AutoAugment's ranges.
    """

    name: ClassVar[str] = "rand_augment"

    count: int
    magnitude: float

    def __post_init__(self) -> None:
        self.check_whole("count", 1, 16)
        self.check_number("magnitude", 0.0, float(STRONGEST))

    def sample(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Return the image after the operations."""
        return rand_augment(image, self.count, self.magnitude, rng)


@dataclass(frozen=True)
class Erase(Step):
    """Random erasing: with a probability fill a rectangle with random pixels (Zhong et al. 2017, arXiv:1708.04896).

    `scale`: share of the area; `ratio`: height / width, drawn evenly in its logarithm.
    """

    name: ClassVar[str] = "erase"

    probability: float = 0.5
    scale: tuple[float, float] = field(default=(0.02, 0.33), kw_only=True)
    ratio: tuple[float, float] = field(default=(0.3, 1 / 0.3), kw_only=True)

    def __post_init__(self) -> None:
        self.check_number("probability", 0.0, 1.0)
        self.check_interval("scale", 0.0, 1.0)
        self.check_interval("ratio", 0.01, 100.0)

    def sample(self, pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return pixels (H,W,C) with a rectangle erased, in a new array; unchanged when no rectangle fits."""
        if rng.random() >= self.probability:
            return pixels
        height, width, channels = pixels.shape
        for _ in range(_ATTEMPTS):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                upper, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                erased = pixels.copy()
                erased[upper : upper + h, left : left + w] = rng.integers(0, 256, (h, w, channels), np.uint8)
                return erased
        return pixels


STEPS: dict[str, type[Step]] = {
    **{
        step.name: step
        for step in (
            RandomResizedCrop,
            RandomCrop,
            Flip,
            VerticalFlip,
            ColorJitter,
            TrivialAugment,
            RandAugment,
            Erase,
        )
    },
    **GEOMETRY,
}


@dataclass(frozen=True)
class Augmentation:
    """What training does to a decoded picture, as a value: printed by `str`, read by `parse`, hashable, comparable.

    Steps: random_resized_crop(size, scale=(low, high), ratio=(low, high), filter=word), random_crop(size, padding=4),
    flip(probability), vertical_flip(probability), color_jitter(strength), trivial_augment,
    rand_augment(count, magnitude), erase(probability, scale=…, ratio=…), and the sizes and crops of preprocessing.
    `erase` works on pixels and stands last.

    Raises UsageError for steps in a wrong order.
    """

    steps: tuple[Step, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        for place, step in enumerate(self.steps):
            if not isinstance(step, (RandomStep, Geometry, Erase)):
                raise UsageError(f"'{step}' is not a step of augmentation")
            if isinstance(step, Erase) and place != len(self.steps) - 1:
                raise UsageError(f"the augmentation '{self}' is out of order: erase stands last")

    def __str__(self) -> str:
        return show_steps(self.steps)

    @classmethod
    def parse(cls, text: str) -> "Augmentation":
        """Read the notation; raise UsageError, with the nearest name, for whatever it does not know."""
        return cls(parse_steps(text, STEPS, "augmentation"))

    def scaled(self, ratio: float) -> "Augmentation":
        """The same for pictures that come out `ratio` times as large; sizes are rounded to whole pixels."""
        return Augmentation(
            tuple(step.scaled(ratio) if isinstance(step, RandomStep | Geometry) else step for step in self.steps)
        )

    def __call__(self, image: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return uint8 pixels (H,W,C) of an image of mode RGB or L; the same for the same state of `rng`."""
        if image.mode not in ("RGB", "L"):
            raise UsageError(f"augmentation takes an image of mode RGB or L, not {image.mode}: decode it first")
        for step in self.steps:
            if isinstance(step, RandomStep):
                image = step.sample(image, rng)
            elif isinstance(step, Geometry):
                image = step.apply(Picture.of(image)).image
        pixels = to_array(image)
        last = self.steps[-1] if self.steps else None
        return last.sample(pixels, rng) if isinstance(last, Erase) else pixels
