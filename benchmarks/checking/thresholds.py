"""Claim: the thresholds of `taxonet check` tell copies from strangers and sharp from blurred.

    python benchmarks/checking/thresholds.py --data PHOTOS

For each change of a picture: the share that is still found as a near duplicate of its original. For strangers: how many
of all pairs of different pictures are taken for near duplicates. For blur: quantiles of the measure, and the share that
is called blurred. Then the time of the search among 100,000 hashes as skewed as real ones.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from taxonet.assets import write_fashion_mnist
from taxonet.checking.judge import SMOOTH
from taxonet.checking.looks import smoothness
from taxonet.checking.near import MOST_BITS, SMALL_BYTES, alike, near_groups, perceptual_hash, small_picture
from taxonet.data import read_data
from taxonet.images import decode


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def scaled(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(share: float) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        x, y = image.width * share / 2, image.height * share / 2
        return image.crop((int(x), int(y), int(image.width - x), int(image.height - y)))

    return change


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 50": jpeg(50),
    "JPEG, quality 20": jpeg(20),
    "half the size": scaled(0.5),
    "a quarter of the size, JPEG 60": lambda image: jpeg(60)(scaled(0.25)(image)),
    "brightness × 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness × 0.7": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "contrast × 1.3": lambda image: ImageEnhance.Contrast(image).enhance(1.3),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blurred by 2 pixels": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "squashed to a square": lambda image: image.resize((224, 224)),
    "2 % cropped": cropped(0.02),
    "5 % cropped": cropped(0.05),
    "10 % cropped": cropped(0.1),
    "turned by 2 degrees": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def features(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    hashes = np.array([perceptual_hash(image.convert("L")) for image in images], np.uint64)
    return hashes, np.stack([small_picture(image) for image in images])


def tiny_copies(images: list[Image.Image]) -> None:
    """Where pictures are small, little detail is left in a smaller copy."""
    for side in (28, 48, 64, 96):
        originals = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        hashes, small = features(originals)
        changed, other = features([jpeg(60)(scaled(0.75)(image)) for image in originals])
        found = (np.bitwise_count(hashes ^ changed) <= MOST_BITS) & alike(small, other)
        print(f"of {side} × {side} pixels, three quarters of the size, JPEG 60: found {found.mean():.3f}")


def near(name: str, images: list[Image.Image]) -> np.ndarray:
    hashes, small = features(images)
    left, right = np.triu_indices(len(images), 1)
    close = np.bitwise_count(hashes[left] ^ hashes[right]) <= MOST_BITS
    left, right = left[close], right[close]
    same = alike(small[left], small[right]).sum() if len(left) else 0
    print(
        f"{name}: {len(close):,} pairs of different pictures, {close.sum():,} with near hashes, {same} taken for copies"
    )
    return hashes


def copies(images: list[Image.Image]) -> None:
    hashes, small = features(images)
    print(f"{'change':<32}found as a near duplicate")
    for name, change in CHANGES.items():
        changed, other = features([change(image) for image in images])
        found = (np.bitwise_count(hashes ^ changed) <= MOST_BITS) & alike(small, other)
        print(f"{name:<32}{found.mean():.3f}")


def blur(name: str, images: list[Image.Image]) -> None:
    for sigma in (0, 1, 2, 3, 5):
        lumas = [image.convert("L").filter(ImageFilter.GaussianBlur(sigma)) for image in images]
        values = np.array([smoothness(luma) for luma in lumas])
        quantiles = " ".join(f"{q:.2f}" for q in np.quantile(values, (0.01, 0.25, 0.5, 0.75, 0.99)))
        print(f"{name}, blurred by {sigma}: quantiles {quantiles}, called blurred {(values > SMOOTH).mean():.3f}")


def search(real: np.ndarray, count: int = 100_000) -> None:
    """Hashes of random parents, a quarter of the bits of each flipped: as skewed as real ones, few of them near."""
    rng = np.random.default_rng(0)
    bits = np.unpackbits(real[:, None].view(np.uint8), axis=1)
    flipped = bits[rng.integers(0, len(bits), count)] ^ (rng.random((count, 64)) < 0.25)
    hashes = np.packbits(flipped, axis=1).view(np.uint64).ravel()
    small = rng.integers(0, 255, (count, SMALL_BYTES), dtype=np.uint8)
    hashes[:2000], small[:2000] = hashes[2000:4000], small[2000:4000]
    started = time.perf_counter()
    groups = near_groups(hashes, small)
    print(
        f"search among {count:,}: {time.perf_counter() - started:.1f} s, {len(groups):,} of 2,000 planted pairs found"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders with photos")
    images = [decode(sample.path, short_side=256) for sample in read_data(parser.parse_args().data).samples]
    with tempfile.TemporaryDirectory() as folder:
        small = [decode(sample.path) for sample in read_data(write_fashion_mnist(folder)).samples]
    copies(images)
    tiny_copies(images)
    real = near("the photos", images)
    near("Fashion-MNIST", small)
    blur("the photos", images)
    blur("Fashion-MNIST", small[::5])
    search(real)


if __name__ == "__main__":
    main()
