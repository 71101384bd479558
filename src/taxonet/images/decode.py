"""From a path, bytes, Pillow image or array to 8-bit pixels: the only place where Taxonet decodes a picture."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, ImageFile

from taxonet.errors import ImageError, UsageError, nearest
from taxonet.images.colour import Mode, to_mode
from taxonet.images.source import (
    DEFAULT_LIMITS,
    Limits,
    check_pixels,
    damaged,
    load,
    open_lazily,
    read_file,
)

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray[Any, np.dtype[Any]]
"""What can be decoded: a path, encoded bytes, a Pillow image, or a uint8 array (H,W), (H,W,1), (H,W,3) or (H,W,4)."""

# A JPEG is decoded at 1/2, 3/8, 1/4 or 1/8 scale while its short side stays at least SCALE_MARGIN × the hint.
# Resize to 256 against the full decode (2 cores, simplejpeg 1.9, Pillow 13; synthetic noise, edges and gratings,
# harder than photos): 12 MP 4:2:0 Pillow 186 ms; margin 1: 34 ms, mean difference 4.0 of 255;
# margin 2: 44 ms, 0.37, 99th percentile 2; margin 3: 66 ms, 0.24. 1607×1203: 25 ms; 8.7 ms, 2.6; 12.6 ms, 0.73;
# 25 ms, 0. Twice is the knee; on two photos enlarged to 12 MP it differs by 0.22, 1 in the 99th percentile, 3 at most.
# MIN_FACTOR: 5/8 to 7/8 have no SIMD inverse DCT and take longer than the full scale.
SCALE_MARGIN = 2
MIN_FACTOR = 2

# libjpeg's warnings that mean missing or wrong pixels. The others (bytes between header segments, after the last
# scan or after the end, an odd JFIF version, …) leave the picture whole, and Pillow decides. 0xd0–0xd7 and 0xda are
# restart and scan markers: bytes left over before them are a scan that went wrong.
_PIXEL_DAMAGE = ("premature end", "bad huffman code", "bad arithmetic code", "instead of rst")
_SCAN_MARKERS = tuple(f"before marker 0x{code:x}" for code in (*range(0xD0, 0xD8), 0xDA))

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Header:
    """What is known before decoding; `width` and `height` are as stored, before `orientation` (1 to 8) is applied."""

    format: str  # "JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF"; "PIL" or "array" in memory
    width: int
    height: int
    mode: str  # Pillow's name
    orientation: int


@dataclass(frozen=True)
class Picture:
    """An image and the full-resolution picture it stands for (the two differ after a scaled decode)."""

    image: Image.Image
    width: int  # of the full-resolution picture, upright
    height: int
    box: tuple[float, float, float, float]  # what the picture covers of `image`: left, upper, right, lower

    @classmethod
    def of(cls, image: Image.Image) -> "Picture":
        """The picture that an image at full resolution is."""
        return cls(image, *image.size, (0, 0, *image.size))


@dataclass(frozen=True)
class _Raw:
    """Decoded pixels before conversion and orientation; `scale` is in eighths, `fresh` when nobody else holds them."""

    image: Image.Image
    width: int
    height: int
    orientation: int
    scale: int = 8
    fresh: bool = False


def decode(
    source: Source,
    *,
    exif: bool = True,
    mode: Mode = "RGB",
    short_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image.Image:
    """Return `source` as an upright 8-bit Pillow image of `mode` ("RGB" or "L"), safe to call from many threads.

    The content decides the format, not the extension: JPEG, PNG, WebP, GIF (first frame), BMP or TIFF (first page).
    Colour conversion is Pillow's, except that 16-bit grey keeps its high byte instead of being clipped.
    With `exif` the EXIF orientation is applied. `short_side` is a hint: a much larger JPEG may come at reduced scale,
    its short side at least twice the hint, so that resizing afterwards agrees with the full decode.

    Raises ImageError (a sentence without the path) for whatever cannot be read whole: missing, truncated, damaged,
    of another format, or beyond `limits`, which are checked on the header before any pixel is decoded.
    (A process that sets Pillow's LOAD_TRUNCATED_IMAGES gets what it asked for in formats other than JPEG.)
    """
    return decode_picture(source, exif=exif, mode=mode, short_side=short_side, limits=limits).image


def decode_picture(
    source: Source,
    *,
    exif: bool = True,
    mode: Mode = "RGB",
    short_side: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Picture:
    """As `decode`, with the size of the full picture: what a resize needs to round as after a full decode."""
    if mode not in ("RGB", "L"):
        raise UsageError(f"the mode must be 'RGB' or 'L', not {mode!r}{nearest(str(mode), ('RGB', 'L'))}")
    raw = _read(source, short_side, limits)
    image = raw.image if raw.fresh and raw.image.mode == mode else to_mode(raw.image, mode)
    orientation = raw.orientation if exif else 1
    if orientation != 1:
        image = image.transpose(_TRANSPOSE[orientation])
    width, height = (raw.height, raw.width) if orientation >= 5 else (raw.width, raw.height)
    return Picture(image, width, height, _covered(image, width, height, raw.scale, orientation))


def read_header(source: Source, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Return format, size, mode and orientation without decoding a pixel; raise ImageError as `decode` does.

    Damage behind the header goes unseen, and so does a PNG's orientation when it stands after the pixels.
    """
    if isinstance(source, Image.Image):
        check_pixels(*source.size, limits)
        return Header("PIL", *source.size, source.mode, _orientation(source))
    if isinstance(source, np.ndarray):
        image = _from_array(source, limits)
        return Header("array", *image.size, image.mode, 1)
    kind, lazy = open_lazily(_data(source, limits), limits)
    orientation = _orientation(lazy)
    return Header(kind, *_stored_size(kind, lazy, orientation), lazy.mode, orientation)


def _read(source: Source, short_side: int | None, limits: Limits) -> _Raw:
    if isinstance(source, Image.Image):
        check_pixels(*source.size, limits)
        load(source.format or "PIL", source)
        return _Raw(source, *source.size, _orientation(source))
    if isinstance(source, np.ndarray):
        image = _from_array(source, limits)
        return _Raw(image, *image.size, 1)
    data = _data(source, limits)
    kind, lazy = open_lazily(data, limits)
    raw = _read_jpeg(data, lazy, short_side) if kind == "JPEG" else None
    return raw or _read_with_pillow(kind, lazy)


def _data(source: object, limits: Limits) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        return read_file(source, limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    raise ImageError(
        f"an image is a path, bytes, a PIL.Image or a numpy array, not an object of type {type(source).__name__}"
    )


def _from_array(array: np.ndarray[Any, np.dtype[Any]], limits: Limits) -> Image.Image:
    if array.dtype != np.uint8:
        raise ImageError(f"the array holds {array.dtype}, pixels must be uint8 (0 to 255)")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(f"the array has shape {array.shape}, it must be (H,W), (H,W,1), (H,W,3) or (H,W,4)")
    check_pixels(array.shape[1], array.shape[0], limits)
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array))


def _read_jpeg(data: bytes, lazy: ImageFile.ImageFile, short_side: int | None) -> _Raw | None:
    """Decode with simplejpeg; None hands the file to Pillow: CMYK, odd sampling, a warning that spares the pixels."""
    colours = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}[lazy.mode]
    try:
        height, width = simplejpeg.decode_jpeg_header(data)[:2]
        if (width, height) != lazy.size:  # two frame headers: the size that was checked is not the one decoded
            return None
        if colours == "CMYK":  # Pillow paints missing parts grey in silence; look for damage at 1/8 scale first
            simplejpeg.decode_jpeg(data, colours, min_height=1, min_width=1)
            return None
        least = SCALE_MARGIN * short_side if short_side else 0
        factor = MIN_FACTOR if least else 1
        pixels = simplejpeg.decode_jpeg(data, colours, min_height=least, min_width=least, min_factor=factor)
    except (ValueError, MemoryError) as error:
        message = str(error).lower()
        if isinstance(error, MemoryError) or any(sign in message for sign in (*_PIXEL_DAMAGE, *_SCAN_MARKERS)):
            raise damaged("JPEG", error) from error
        return None
    image = Image.fromarray(pixels[..., 0] if lazy.mode == "L" else pixels)
    return _Raw(image, width, height, _orientation(lazy), _eighths(width, height, image.size), fresh=True)


def _eighths(width: int, height: int, scaled: tuple[int, int]) -> int:
    """The k for which a DCT-scaled decode of width × height has the size `scaled` (libjpeg rounds up)."""
    return next(k for k in range(8, 0, -1) if (-(-width * k // 8), -(-height * k // 8)) == scaled)


def _read_with_pillow(kind: str, lazy: ImageFile.ImageFile) -> _Raw:
    if kind == "TIFF":
        return _read_tiff(lazy)
    load(kind, lazy)
    return _Raw(lazy, *lazy.size, _orientation(lazy))


def _read_tiff(lazy: ImageFile.ImageFile) -> _Raw:
    orientation = _orientation(lazy)
    size = _stored_size("TIFF", lazy, orientation)
    # Pillow checks its process-wide pixel limit as it allocates a TIFF; given the memory, it does not
    lazy.im = Image.new(lazy.mode, size).im
    load("TIFF", lazy)
    if orientation == 1:
        return _Raw(lazy, *size, 1)
    # Pillow turns a TIFF upright while loading, asked or not; back to the order of the file
    return _Raw(lazy.transpose(_TRANSPOSE[{6: 8, 8: 6}.get(orientation, orientation)]), *size, orientation)


def _stored_size(kind: str, lazy: ImageFile.ImageFile, orientation: int) -> tuple[int, int]:
    """Width and height in the file: Pillow reports them already exchanged for a TIFF lying on its side."""
    return (lazy.height, lazy.width) if kind == "TIFF" and orientation >= 5 else lazy.size


def _orientation(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1 when there is none or it makes no sense: bad metadata spoils no picture."""
    try:
        # not PngImageFile's own, which would decode the pixels to look behind them
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _covered(
    image: Image.Image, width: int, height: int, scale: int, orientation: int
) -> tuple[float, float, float, float]:
    """Without the part of the last row and column that rounding up added; a flip moves it to the first."""
    across, down = width * scale / 8, height * scale / 8
    left = image.width - across if orientation in (2, 3, 6, 7) else 0
    upper = image.height - down if orientation in (3, 4, 7, 8) else 0
    return left, upper, left + across, upper + down
