"""One look at a picture: everything a check needs from it, about 0.8 KB, from a single reading of the file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from taxonet.checking.near import perceptual_hash, small_picture
from taxonet.errors import ImageError
from taxonet.images import DEFAULT_LIMITS, Limits, read_header
from taxonet.images.decode import decode_picture
from taxonet.images.source import read_file

SIDE = 256  # pixels of the short side that brightness and sharpness are measured at: about what networks see
GREY_DIFFERENCE = 3.0  # mean difference of the channels below which a picture is grey, in levels of 255


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen. Sizes are upright; brightness in levels of 255; `smooth` is what `smoothness` gives."""

    digest: bytes
    format: str
    width: int
    height: int
    orientation: int
    grey: bool
    bright: float  # 99th percentile of the luma
    spread: float  # 99th minus 1st percentile of the luma
    smooth: float
    hash: int
    small: bytes


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A picture that cannot be read, and why; the digest is empty where even the bytes could not be had."""

    reason: str
    digest: bytes = b""


def look(path: Path, limits: Limits = DEFAULT_LIMITS) -> Look | Unreadable:
    """Read and decode a picture once; whatever cannot be read whole comes back as `Unreadable`."""
    digest = b""
    try:
        data = read_file(path, limits)
        digest = content_digest(data)
        header = read_header(data, limits)
        picture = decode_picture(data, short_side=SIDE, limits=limits)
    except ImageError as error:
        return Unreadable(str(error), digest)
    image = _reduced(picture.image)
    luma = image.convert("L")
    low, high = np.percentile(np.asarray(luma), (1, 99))
    return Look(
        digest=digest,
        format=header.format,
        width=picture.width,
        height=picture.height,
        orientation=header.orientation,
        grey=_is_grey(image),
        bright=float(high),
        spread=float(high - low),
        smooth=smoothness(luma),
        hash=perceptual_hash(luma),
        small=small_picture(image).tobytes(),
    )


def content_digest(data: bytes) -> bytes:
    """16 bytes that are equal only for equal files (BLAKE2b, 128 bits)."""
    return hashlib.blake2b(data, digest_size=16).digest()


def smoothness(luma: Image.Image) -> float:
    """The share of the gradients' energy that a Gaussian blur of one pixel leaves: near 1 where there are no edges.

    At short side 256, the median of 540 photos is 0.20 and of the same blurred by 2 pixels 0.84
    (`benchmarks/checking/thresholds.py`).
    """
    from scipy.ndimage import gaussian_filter

    pixels = np.asarray(luma, np.float32)
    whole, blurred = (_energy(part) for part in (pixels, gaussian_filter(pixels, 1.0)))
    return blurred / whole if whole > 0 else 1.0


def _energy(pixels: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> float:
    return float(sum((np.diff(pixels, axis=axis) ** 2).sum(dtype=np.float64) for axis in (0, 1)))


def _reduced(image: Image.Image) -> Image.Image:
    ratio = SIDE / min(image.size)
    if ratio >= 1:
        return image
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image, np.int16)
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean()) < GREY_DIFFERENCE
