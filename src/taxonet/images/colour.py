"""From any pixel mode of Pillow to 8-bit RGB or grey."""

from typing import Literal

import numpy as np
from PIL import Image

from taxonet.errors import ImageError

Mode = Literal["RGB", "L"]


def to_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """Return a new 8-bit image of `mode` without metadata: Pillow's plain `convert`, except where that would clip.

    16-bit grey keeps its high byte (value >> 8; a 12-bit TIFF value >> 4), where Pillow turns all above 255 white.
    32-bit integer and float pixels have no white level to scale by: ImageError. Alpha is dropped, as by Pillow.
    """
    if image.mode.startswith("I;16"):
        image = _high_byte(image)
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "floating-point"
        raise ImageError(f"its {kind} pixels have no fixed white level; save it with 8 or 16 bits per channel")
    if image.mode in ("RGBa", "La"):  # Pillow undoes premultiplied alpha only into the form with plain alpha
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    if image.mode == "P" and "transparency" in image.info:
        image = image.copy()  # the caller's image keeps its entry; without it Pillow warns and answers the same
        del image.info["transparency"]
    try:
        converted = image.convert(mode)
    except ValueError:
        raise ImageError(f"its pixels of mode {image.mode} cannot be converted to {mode}") from None
    converted.info.clear()  # an orientation tag left behind would be applied a second time
    return converted


def _high_byte(image: Image.Image) -> Image.Image:
    bits = getattr(image, "tag_v2", {}).get(258, 16)  # BitsPerSample
    shift = 4 if bits in (12, (12,)) else 8
    return Image.fromarray((np.asarray(image) >> shift).astype(np.uint8))
