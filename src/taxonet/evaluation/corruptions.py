"""What can go wrong with a photo, at three severities: noise, blur, JPEG, light, contrast, rotation.

The strengths of noise, blur, JPEG and contrast are severities 1, 3 and 5 of ImageNet-C (Hendrycks and Dietterich 2019,
arXiv 1903.12261), which has them for 224 pixels; lengths are shares of the short side here. Each corruption is a pure
function of the picture, the severity and a seed.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

SEVERITIES = (1, 2, 3)


@dataclass(frozen=True)
class Corruption:
    """A corruption: its name, the strength at each severity, what the strength is, and what it does to a picture."""

    name: str
    strengths: tuple[float, float, float]
    unit: str
    function: Callable[[Image.Image, float, np.random.Generator], Image.Image]

    def apply(self, image: Image.Image, severity: int, seed: tuple[int, ...]) -> Image.Image:
        """Return the corrupted picture, of the same size and mode (RGB or L); the same for the same seed."""
        return self.function(image, self.strengths[severity - 1], np.random.default_rng(seed))


def _noise(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(255 * strength)
    return _image(pixels + noise)


def _blur(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(strength * min(image.size)))


def _jpeg(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=round(strength))
    with Image.open(buffer) as decoded:
        return decoded.convert(image.mode)


def _light(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    return image.point([min(255, round(strength * value)) for value in range(256)] * len(image.getbands()))


def _contrast(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, np.float32)
    mean = pixels.mean(axis=(0, 1), keepdims=True)
    return _image(mean + np.float32(strength) * (pixels - mean))


def _rotation(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """To the left or the right; the corners are filled by mirroring, as black ones would be another corruption."""
    angle = strength if rng.random() < 0.5 else -strength
    pixels = np.asarray(image)
    # a turned w × h picture reaches half its diagonal from the centre
    half = int(np.hypot(*image.size) / 2) + 2
    down, across = (max(0, half - side // 2) for side in pixels.shape[:2])
    wide = Image.fromarray(np.pad(pixels, ((down, down), (across, across), *[(0, 0)] * (pixels.ndim - 2)), "symmetric"))
    turned = wide.rotate(angle, Image.Resampling.BICUBIC)
    return turned.crop((across, down, across + image.width, down + image.height))


def _image(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


CORRUPTIONS = (
    Corruption("noise", (0.08, 0.18, 0.38), "standard deviation of Gaussian noise, as a share of white", _noise),
    Corruption("blur", (1 / 224, 3 / 224, 6 / 224), "standard deviation of a Gaussian, as a share of the side", _blur),
    Corruption("jpeg", (25, 15, 7), "quality of JPEG", _jpeg),
    Corruption("darker", (0.6, 0.35, 0.15), "factor on every pixel value", _light),
    Corruption("brighter", (1.4, 1.9, 2.6), "factor on every pixel value, clipped at white", _light),
    Corruption("contrast", (0.4, 0.2, 0.05), "what is left of the difference to the mean", _contrast),
    Corruption("rotation", (5, 15, 30), "degrees to either side, corners mirrored", _rotation),
)
