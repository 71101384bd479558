"""The steps that set the size of a picture, shared by preprocessing and augmentation; Pillow's resize is the kernel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from taxonet.errors import ImageError
from taxonet.images.decode import Picture
from taxonet.images.notation import Step, show

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# A kernel without jumps: a region that is off by a rounding error gives the same pixels up to rounding.
CONTINUOUS = ("bicubic", "bilinear", "lanczos")

MAX_SIDE = 4096  # a bundle is written by a stranger: its preprocessing must not ask for gigabytes
MAX_RESIZED = 2**26  # pixels; a 1×100,000 picture brought to short side 256 would have 6.5 billion

Size = tuple[int, int]  # height, width
Box = tuple[float, float, float, float]  # left, upper, right, lower, in pixels


@dataclass(frozen=True)
class Geometry(Step):
    """Base of the steps below; they are pure functions of the picture."""

    def apply(self, picture: Picture) -> Picture:
        """Return the picture after this step."""
        raise NotImplementedError

    def output_size(self, size: Size | None) -> Size | None:
        """The (height, width) after this step; None stands for a size that depends on the picture."""
        raise NotImplementedError

    def scaled(self, ratio: float) -> "Geometry":
        """This step for an output `ratio` times as large, sizes rounded."""
        raise NotImplementedError

    def covered(self, size: Size) -> Box:
        """What the output covers of a picture of `size`, in its pixels; beyond its border there are zeros."""
        return 0, 0, size[1], size[0]

    @property
    def short_side(self) -> int | None:
        """The short side the picture needs before this step; None: full resolution."""
        return None


@dataclass(frozen=True)
class Resize(Geometry):
    """Bring the short side to `size`, the long side to int(size × long / short), as torchvision's `Resize(size)`."""

    name: ClassVar[str] = "resize"

    size: int
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        self.check_whole("size", 1, MAX_SIDE)
        self.check_word("filter", FILTERS)

    def apply(self, picture: Picture, crop: Size | None = None) -> Picture:
        """Return the picture with short side `size`, or its middle; raise ImageError when it is too elongated."""
        height, width = self._target(picture.height, picture.width)
        if height * width > MAX_RESIZED:
            raise ImageError(
                f"the image is {picture.width}×{picture.height}: {self} would make it {width}×{height}, "
                f"more than {MAX_RESIZED:,} pixels"
            )
        return _resample(picture, height, width, self.filter, crop)

    def output_size(self, size: Size | None) -> Size | None:
        """The size for a picture of `size`; None when that is not known."""
        return self._target(*size) if size else None

    def scaled(self, ratio: float) -> "Resize":
        """The same with `size` × `ratio`, rounded."""
        return Resize(round(self.size * ratio), self.filter)

    @property
    def short_side(self) -> int | None:
        """`size`, except for nearest: it picks single pixels, which a reduced decode has averaged away."""
        return None if self.filter == "nearest" else self.size

    def _target(self, height: int, width: int) -> Size:
        if width <= height:
            return int(self.size * height / width), self.size
        return self.size, int(self.size * width / height)


@dataclass(frozen=True)
class Squash(Geometry):
    """Bring the picture to exactly `height` × `width`, whatever its aspect ratio."""

    name: ClassVar[str] = "squash"

    height: int
    width: int
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        self.check_whole("height", 1, MAX_SIDE)
        self.check_whole("width", 1, MAX_SIDE)
        self.check_word("filter", FILTERS)

    def apply(self, picture: Picture, crop: Size | None = None) -> Picture:
        """Return the picture at `height` × `width`, or its middle."""
        return _resample(picture, self.height, self.width, self.filter, crop)

    def output_size(self, size: Size | None) -> Size | None:
        """Always (height, width)."""
        return self.height, self.width

    def scaled(self, ratio: float) -> "Squash":
        """The same with both sides × `ratio`, rounded."""
        return Squash(round(self.height * ratio), round(self.width * ratio), self.filter)

    @property
    def short_side(self) -> int | None:
        """The longer side, enough for either orientation; None for nearest."""
        return None if self.filter == "nearest" else max(self.height, self.width)


@dataclass(frozen=True)
class Fit(Geometry):
    """Letterbox: bring the long side to `size`, the short one to round(size × short / long), pad with zeros."""

    name: ClassVar[str] = "fit"

    size: int
    filter: str = "bicubic"

    def __post_init__(self) -> None:
        self.check_whole("size", 1, MAX_SIDE)
        self.check_word("filter", FILTERS)

    def apply(self, picture: Picture) -> Picture:
        """Return the whole picture centred in `size` × `size`."""
        height, width = self._target(picture.height, picture.width)
        return _crop(_resample(picture, height, width, self.filter), self.size, self.size)

    def output_size(self, size: Size | None) -> Size | None:
        """Always (size, size)."""
        return self.size, self.size

    def covered(self, size: Size) -> Box:
        """The whole picture and the zeros that make it square."""
        height, width = self._target(*size)
        x, y = size[1] / width, size[0] / height
        left, upper = crop_offset(width, self.size), crop_offset(height, self.size)
        return left * x, upper * y, (left + self.size) * x, (upper + self.size) * y

    def scaled(self, ratio: float) -> "Fit":
        """The same with `size` × `ratio`, rounded."""
        return Fit(round(self.size * ratio), self.filter)

    @property
    def short_side(self) -> int | None:
        """`size`, more than enough: it is the long side that becomes `size`; None for nearest."""
        return None if self.filter == "nearest" else self.size

    def _target(self, height: int, width: int) -> Size:
        long = max(height, width)
        return max(1, round(self.size * height / long)), max(1, round(self.size * width / long))


@dataclass(frozen=True)
class CenterCrop(Geometry):
    """Cut out the central `height` × `width`, from round((H − height) / 2) on; a smaller picture gets zeros around it.

    Offsets and the odd pixel of the padding (right and bottom) are those of torchvision's `CenterCrop`.
    """

    name: ClassVar[str] = "center_crop"

    height: int
    width: int | None = None  # as the height

    def __post_init__(self) -> None:
        if self.width is None:
            object.__setattr__(self, "width", self.height)
        self.check_whole("height", 1, MAX_SIDE)
        self.check_whole("width", 1, MAX_SIDE)

    def __str__(self) -> str:
        height, width = self.size
        return f"{self.name}({show(height)})" if height == width else f"{self.name}({show(height)}, {show(width)})"

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.height, self.width or self.height

    def apply(self, picture: Picture) -> Picture:
        """Return the central `height` × `width`."""
        return _crop(picture, *self.size)

    def output_size(self, size: Size | None) -> Size | None:
        """Always (height, width)."""
        return self.size

    def covered(self, size: Size) -> Box:
        """The middle."""
        height, width = self.size
        left, upper = crop_offset(size[1], width), crop_offset(size[0], height)
        return left, upper, left + width, upper + height

    def scaled(self, ratio: float) -> "CenterCrop":
        """The same with both sides × `ratio`, rounded."""
        height, width = self.size
        return CenterCrop(round(height * ratio), round(width * ratio))


@dataclass(frozen=True)
class Pad(Geometry):
    """Add `border` rows and columns of zeros on each side."""

    name: ClassVar[str] = "pad"

    border: int

    def __post_init__(self) -> None:
        self.check_whole("border", 1, MAX_SIDE)

    def apply(self, picture: Picture) -> Picture:
        """Return the picture with its border."""
        image = picture.image
        box = (-self.border, -self.border, image.width + self.border, image.height + self.border)
        return Picture.of(image.crop(box))

    def output_size(self, size: Size | None) -> Size | None:
        """The size with the border; None when it depends on the picture."""
        return (size[0] + 2 * self.border, size[1] + 2 * self.border) if size else None

    def covered(self, size: Size) -> Box:
        """The picture and its border."""
        return -self.border, -self.border, size[1] + self.border, size[0] + self.border

    def scaled(self, ratio: float) -> "Pad":
        """The same with the border × `ratio`, rounded."""
        return Pad(round(self.border * ratio))


GEOMETRY: dict[str, type[Geometry]] = {step.name: step for step in (Resize, Squash, Fit, CenterCrop, Pad)}


def crop_offset(side: int, crop: int) -> int:
    """Where a centred crop starts; negative when the side must be padded to reach it."""
    return round((side - crop) / 2) if side >= crop else -((crop - side) // 2)


def apply_steps(picture: Picture, steps: Sequence[Geometry]) -> Picture:
    """Return the picture after all steps.

    A resize before a centre crop computes only what the crop keeps: at 500 pixels 1.35 ms instead of 2.33. Pillow takes
    the region in single precision: about 1 in 25,000 values differs by 1 of 255 from cropping afterwards. Where Pillow
    would choose the other order of its two passes, a tenth of the values does, and an edge by more.
    """
    left = list(steps)
    while left:
        step = left.pop(0)
        following = left[0] if left else None
        if isinstance(step, (Resize, Squash)) and isinstance(following, CenterCrop):
            picture = step.apply(picture, following.size)
            del left[0]
        else:
            picture = step.apply(picture)
    return picture


def _resample(picture: Picture, height: int, width: int, kernel: str, crop: Size | None = None) -> Picture:
    """The picture at `height` × `width`, or the middle `crop` of that."""
    image, box = picture.image, picture.box
    if box == (0, 0, width, height) and image.size == (width, height):
        resized = Picture.of(image)
    elif crop and crop[0] <= height and crop[1] <= width and kernel in CONTINUOUS:
        return Picture.of(image.resize(crop[::-1], FILTERS[kernel], box=_region(box, (height, width), crop)))
    else:
        resized = Picture.of(image.resize((width, height), FILTERS[kernel], box=box))
    return _crop(resized, *crop) if crop else resized


def _region(box: Box, size: Size, crop: Size) -> Box:
    """The part of `box` that becomes the middle `crop` once the box is brought to `size`."""
    x, y = (box[2] - box[0]) / size[1], (box[3] - box[1]) / size[0]
    left, upper = crop_offset(size[1], crop[1]), crop_offset(size[0], crop[0])
    right, lower = left + crop[1], upper + crop[0]
    return (
        box[0] + left * x,
        box[1] + upper * y,
        box[2] if right == size[1] else box[0] + right * x,
        box[3] if lower == size[0] else box[1] + lower * y,
    )


def _crop(picture: Picture, height: int, width: int) -> Picture:
    left = crop_offset(picture.image.width, width)
    upper = crop_offset(picture.image.height, height)
    return Picture.of(picture.image.crop((left, upper, left + width, upper + height)))
