"""Photos for the benchmarks of prediction: JPEGs of 500 pixels or of 12 megapixels, made from real pictures.

A real picture (of `--data`; without it the two that Taxonet ships and, where scikit-image is installed, its colour
pictures) is enlarged with Lanczos, gets noise as of a sensor (its variance grows with the light) and is written as JPEG
at quality 90 with 4:2:0. Enlarging leaves no fine detail, so the noise stands for it: it is set so that a 12-megapixel
file takes what a telephone's does, about 3 MB, and costs as much to decode. Pictures that are used more than once are
cropped and mirrored differently each time. The same count, kind and seed give the same files.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from taxonet.assets import photo_paths
from taxonet.data import read_data

QUALITY = 90
COLOUR_PICTURES = ("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "ihc.png", "hubble_deep_field.jpg")


@dataclass(frozen=True)
class Kind:
    """How large photos are, and the variance of their noise: `read` + `shot` × value, values from 0 to 255."""

    words: str
    short: int
    long: int | None  # None keeps the picture's own ratio of sides
    read: float
    shot: float


KINDS = {
    "500": Kind("500 pixels of short side", 500, None, 4.0, 0.06),
    "12mp": Kind("12 megapixels", 3000, 4000, 8.0, 0.20),
}


def make_photos(folder: Path, kind: str, count: int, data: Path | None = None, seed: int = 0) -> list[Path]:
    """Write `count` photos, `00000.jpg` and on, where they are not there already; return their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = source_pictures(data, count)
    paths = []
    for number in range(count):
        path = folder / f"{number:05d}.jpg"
        if not path.is_file():
            rng = np.random.default_rng((seed, number))
            image = varied(sources[number % len(sources)], number // len(sources), rng)
            unfinished = path.with_suffix(".part")
            enlarged(image, KINDS[kind], rng).save(unfinished, "JPEG", quality=QUALITY)
            unfinished.replace(path)
        paths.append(path)
    return paths


def source_pictures(data: Path | None, count: int) -> list[Path]:
    """Up to `count` pictures spread evenly over the folder, so that every class is among them."""
    found = [sample.path for sample in read_data(data).samples] if data else list(shipped_pictures())
    step = max(1.0, len(found) / count)
    return [found[int(place * step)] for place in range(min(count, len(found)))]


def shipped_pictures() -> Iterator[Path]:
    yield from photo_paths()
    try:
        import skimage
    except ImportError:
        return
    folder = Path(skimage.__file__).parent / "data"
    yield from (folder / name for name in COLOUR_PICTURES if (folder / name).is_file())


def varied(source: Path, turn: int, rng: np.random.Generator) -> Image.Image:
    """The picture itself the first time, another part of it (60 to 100 % of each side) afterwards."""
    with Image.open(source) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    if turn == 0:
        return image
    share = rng.uniform(0.6, 1.0)
    width, height = round(image.width * share), round(image.height * share)
    left, upper = rng.integers(image.width - width + 1), rng.integers(image.height - height + 1)
    part = image.crop((left, upper, left + width, upper + height))
    return ImageOps.mirror(part) if rng.random() < 0.5 else part


def enlarged(image: Image.Image, kind: Kind, rng: np.random.Generator) -> Image.Image:
    """The picture at the kind's size, with noise of a sensor."""
    if kind.long is None:
        scale = kind.short / min(image.size)
        large = image.resize([max(kind.short, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    else:
        lying = image.width >= image.height
        large = ImageOps.fit(image, (kind.long, kind.short) if lying else (kind.short, kind.long))
    return noisy(np.asarray(large), kind, rng)


def noisy(pixels: NDArray[np.uint8], kind: Kind, rng: np.random.Generator) -> Image.Image:
    """The pixels with noise; one field of it serves many photos, each from another place on."""
    field = normal_values(2**24 + 1)
    start = rng.integers(len(field))
    noise = np.resize(np.roll(field, -start), pixels.shape)
    deviation = np.sqrt(kind.read + kind.shot * np.arange(256)).astype(np.float32)
    noise *= deviation[pixels]
    noise += pixels
    return Image.fromarray(np.clip(np.rint(noise, out=noise), 0, 255, out=noise).astype(np.uint8))


@cache
def normal_values(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(count, np.float32)
