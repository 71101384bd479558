"""Draws the embedded Fashion-MNIST sample, byte for byte: draw_fashion_mnist.py --source DIR --out DIR.

DIR of --source holds the four original files (`train-images-idx3-ubyte.gz` …), as in the Debian package
`dataset-fashion-mnist` (/usr/share/datasets/fashion-mnist). Writes `fashion_mnist_2500.png` and `.toml`.

The draw hashes names instead of calling a random generator, and the PNG is encoded here with zlib instead of
by an imaging library, so that neither NumPy's nor Pillow's version can change a byte. A Python built on zlib-ng
compresses differently: there the PNG holds the same pixels in other bytes.
"""

import argparse
import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASSES = (  # the source's names in label order, made safe as folder names
    *("t-shirt_top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle_boot"),
)
SEED = 2017
SIDE, COLUMNS = 28, 50
SPLITS = {"train": ("train", 200), "test": ("t10k", 50)}  # ours: the source's prefix, images a class
TABLE = """\
# 2,500 images of Fashion-MNIST in one picture, fashion_mnist_2500.png. Both files are written by
# scripts/draw_fashion_mnist.py. Copyright 2017 Zalando SE, MIT licence: see NOTICE.md.
classes = [{classes}]
tile = [{side}, {side}]  # height, width
seed = {seed}
# Drawn are, of each class, the images whose SHA-256 of "{{seed}} {{split}} {{index}}" is smallest, in ascending
# order of index, which counts from 0 in the source file. All tiles of a row of the picture have one label, an
# index of classes.
"""
SPLIT_TABLE = """
[{split}]
source = "{prefix}-images-idx3-ubyte.gz"
per_class = {count}
first_row = {first}
row_labels = {labels}
"""

Bytes = NDArray[np.uint8]


def read_idx(path: Path) -> Bytes:
    content = gzip.decompress(path.read_bytes())
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    if (zero, kind) != (0, 8):
        raise SystemExit(f"'{path}' is not an IDX file of unsigned bytes")
    shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def draw(split: str, labels: Bytes, count: int) -> list[int]:
    """The indices drawn, class after class."""

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"{SEED} {split} {index}".encode()).digest()

    drawn: list[int] = []
    for label in range(len(CLASSES)):
        drawn += sorted(sorted(np.flatnonzero(labels == label).tolist(), key=rank)[:count])
    return drawn


def encode_png(picture: Bytes) -> bytes:
    """A grey PNG; each line takes the filter with the least sum of absolute residuals."""
    height, width = picture.shape
    here = picture.astype(np.int16)
    padded = np.pad(here, ((1, 0), (1, 0)))
    left, up, corner = padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]
    to_left, to_up, to_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    nearest_up = np.where(to_up <= to_corner, up, corner)
    paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest_up)
    guesses = (np.zeros_like(here), left, up, (left + up) // 2, paeth)  # PNG's filters 0 to 4
    residuals = np.stack([(here - guess) % 256 for guess in guesses])
    best = np.minimum(residuals, 256 - residuals).sum(axis=2, dtype=np.int64).argmin(axis=0)
    lines = b"".join(
        bytes([choice]) + residuals[choice, row].astype(np.uint8).tobytes() for row, choice in enumerate(best)
    )
    # matches of distance one only: the smallest of zlib's strategies here
    packer = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", packer.compress(lines) + packer.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="the original IDX files")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two files go")
    arguments = parser.parse_args()

    names = ", ".join(f'"{name}"' for name in CLASSES)
    table = TABLE.format(classes=names, side=SIDE, seed=SEED)
    tiles: list[Bytes] = []
    first = 0
    for split, (prefix, count) in SPLITS.items():
        images = read_idx(arguments.source / f"{prefix}-images-idx3-ubyte.gz")
        labels = read_idx(arguments.source / f"{prefix}-labels-idx1-ubyte.gz")
        drawn = draw(split, labels, count)
        tiles.append(images[drawn])
        row_labels = labels[drawn[::COLUMNS]].tolist()
        table += SPLIT_TABLE.format(split=split, prefix=prefix, count=count, first=first, labels=row_labels)
        first += len(row_labels)
    mosaic = np.concatenate(tiles).reshape(first, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
    arguments.out.mkdir(parents=True, exist_ok=True)
    picture = encode_png(mosaic.reshape(first * SIDE, COLUMNS * SIDE))
    (arguments.out / "fashion_mnist_2500.png").write_bytes(picture)
    (arguments.out / "fashion_mnist_2500.toml").write_text(table, "utf-8", newline="\n")


if __name__ == "__main__":
    main()
