"""Pictures that are equal pixel by pixel in files that differ: another format, other metadata."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from taxonet.checking.duplicates import equal_groups
from taxonet.console import Listener
from taxonet.data import read_ahead
from taxonet.errors import ImageError
from taxonet.images import decode


def equal_pixels(groups: Sequence[Sequence[int]], paths: Sequence[Path], listener: Listener) -> list[list[int]]:
    """The groups of positions whose pictures, upright and in RGB, are equal; only near duplicates can be."""
    flat = [(number, position) for number, group in enumerate(groups) for position in group]
    listener.start("comparing near duplicates", len(flat))
    keys: list[tuple[int, bytes] | None] = []
    digests = read_ahead(_pixel_digest, [paths[position] for _, position in flat])
    for done, ((number, _), digest) in enumerate(zip(flat, digests, strict=True), start=1):
        keys.append((number, digest) if digest else None)
        listener.advance(done)
    listener.finish()
    return [[flat[k][1] for k in group] for group in equal_groups(keys)]


def _pixel_digest(path: Path) -> bytes | None:
    try:
        image = decode(path)
    except ImageError:  # gone since it was looked at
        return None
    return hashlib.blake2b(str(image.size).encode() + image.tobytes(), digest_size=16).digest()
