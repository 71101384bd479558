"""Where a picture comes from: a file or bytes, checked by content and by size before anything is decoded."""

import codecs
import io
import os
import stat
from dataclasses import dataclass

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from taxonet.errors import ImageError

MISSING = "the file does not exist"
ACCEPTED = "JPEG, PNG, WebP, GIF, BMP and TIFF"

# Pillow's classes are called directly: Image.open would apply the process-wide Image.MAX_IMAGE_PIXELS,
# which refuses a 200 MP photo and cannot be changed from one thread without changing it for all.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WebP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}

_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # should a pipe have come in a file's place

# (offset, signature, what it is)
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WebP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (4, b"ftyp", "a HEIC, AVIF or video file"),
    (0, b"\0\0\1\0", "a Windows icon"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF document"),
    (4, b"jP  ", "a JPEG 2000 picture"),
    (4, b"JXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"PK\3\4", "a ZIP archive"),
)


@dataclass(frozen=True)
class Limits:
    """What a picture may cost: `max_bytes` of encoded file and `max_pixels` (width × height) once decoded."""

    max_bytes: int
    max_pixels: int


DEFAULT_LIMITS = Limits(max_bytes=256 * 2**20, max_pixels=200_000_000)
"""Room for the largest phone photo (200 MP: 16,320 × 12,240 = 199.8 million pixels, 50 to 150 MB as JPEG, 600 MB
decoded); anything beyond is a scan to cut up first or a decompression bomb."""


def check_pixels(width: int, height: int, limits: Limits) -> None:
    """Raise ImageError when a picture is empty or has more pixels than `limits` allows."""
    if width < 1 or height < 1:
        raise ImageError(f"the image has no pixels ({width}×{height})")
    if width * height > limits.max_pixels:
        raise ImageError(
            f"the image has {width * height:,} pixels ({width}×{height}), the limit is {limits.max_pixels:,}"
        )


def check_bytes(size: int, limits: Limits) -> None:
    """Raise ImageError when an encoded picture is empty or larger than `limits` allows."""
    if size == 0:
        raise ImageError("the file is empty")
    if size > limits.max_bytes:
        raise ImageError(f"the file has {size:,} bytes, the limit is {limits.max_bytes:,}")


def read_file(path: str | os.PathLike[str], limits: Limits) -> bytes:
    """Return the bytes of the regular file `path`; raise ImageError when it cannot be read or is too large."""
    try:
        _check_regular(os.stat(path))  # noqa: PTH116 - pathlib takes as long as the reading itself
        handle = os.open(path, os.O_RDONLY | _NO_WAITING)
        try:
            status = os.fstat(handle)  # it may have been replaced
            _check_regular(status)
            check_bytes(status.st_size, limits)
            data = _read_whole(handle, status.st_size)
        finally:
            os.close(handle)
    except FileNotFoundError:
        raise ImageError(MISSING) from None
    except PermissionError:
        raise ImageError("the file may not be read: permission denied") from None
    except OSError as error:
        raise ImageError(f"the file cannot be read: {error.strerror or 'input/output error'}") from None
    except ValueError:
        raise ImageError("the path is not valid: it holds a null character") from None
    check_bytes(len(data), limits)
    return data


def _check_regular(status: os.stat_result) -> None:
    """A pipe would block for ever, a device never ends, and opening one may set something going."""
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("it is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("it is not a regular file")


def _read_whole(handle: int, size: int) -> bytes:
    """The bytes up to the end, or one more than `size` of a file that grows meanwhile; mostly in one piece."""
    data = os.read(handle, size + 1)
    while len(data) <= size and (more := os.read(handle, size + 1 - len(data))):
        data += more
    return data


def identify(data: bytes) -> str:
    """Return the format of encoded bytes by their content; raise ImageError when it is not an accepted one."""
    found = next((what for at, sign, what in _SIGNATURES if data.startswith(sign, at)), None)
    if found in _PLUGINS:
        return found
    if found is None and _is_text(data[:512]):
        found = "a text file"
    what = f"it is {found}" if found else "its content is not a known image"
    raise ImageError(f"{what}; the accepted formats are {ACCEPTED}")


def _is_text(start: bytes) -> bool:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be cut in two
    except UnicodeDecodeError:
        return False
    return all(ch.isprintable() or ch.isspace() for ch in text)


def open_lazily(data: bytes, limits: Limits) -> tuple[str, ImageFile.ImageFile]:
    """Return the format and Pillow's undecoded image: only the header has been read and checked.

    Raises ImageError for an unknown format, a damaged header, or a picture beyond `limits`.
    """
    check_bytes(len(data), limits)
    kind = identify(data)
    if kind == "WebP":  # Pillow's class allocates the canvas as it opens
        check_pixels(*_webp_size(data), limits)
    try:
        image = _PLUGINS[kind](io.BytesIO(data))
    except Exception as error:
        raise damaged(kind, error) from error
    check_pixels(*image.size, limits)
    return kind, image


def load(kind: str, image: Image.Image) -> None:
    """Decode Pillow's lazy `image` in place; raise ImageError when the data is truncated or damaged."""
    try:
        image.load()
    except Exception as error:
        raise damaged(kind, error) from error


def damaged(kind: str, error: Exception) -> ImageError:
    """The ImageError for whatever a decoder raised: on damaged bytes Pillow raises nearly any class there is."""
    if isinstance(error, MemoryError):
        return ImageError(f"there is not enough memory to decode the {kind} picture")
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return ImageError(f"the {kind} picture has more pixels than Pillow decodes in this format")
    reason = str(error).strip().rstrip(".") if isinstance(error, (OSError, SyntaxError, ValueError)) else ""
    return ImageError(f"the {kind} picture is truncated or damaged" + (f": {reason}" if reason else ""))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from a WebP header (RFC 9649, sections 2.5 to 2.7)."""
    head = data[:30].ljust(30, b"\0")
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if head[12:16] == b"VP8 " and len(data) >= 30:
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    raise ImageError("the WebP picture is truncated or damaged: its header is incomplete")
