"""Near duplicates among many pictures: a perceptual hash finds candidates, small pictures side by side decide.

The hash is the sign of low DCT frequencies against their median (Zauner 2010, "Implementation and Benchmarking of
Perceptual Image Hash Functions", section 3.2.1). Pairs of hashes that differ in few bits are found by parts (Norouzi,
Punjani and Fleet 2012, "Fast Search in Hamming Space with Multi-Index Hashing"), so nobody compares all with all.
The thresholds are measured by `benchmarks/checking/thresholds.py`. Not found are mirrored copies, crops of more than
about 3 %, and smaller copies of pictures below 64 pixels of a side: too little of their detail is left.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DETAIL, TINT = 24, 4  # sides of the small picture's luma and of its chroma, in pixels
SMALL_BYTES = DETAIL * DETAIL + 2 * TINT * TINT
BITS, PARTS = 64, 4  # parts of 16 bits
MOST_BITS = 7  # pairs with at most 7 of 64 different bits have a part with at most one
LIKENESS = 0.85  # correlation of the small pictures' detail from which on two are the same
TINT_DIFFERENCE = 12.0  # mean difference of chroma up to which two are the same, in levels of 255
COLOURLESS = 4.0  # a picture with less chroma is grey, and may be the copy of a coloured one
CHUNK = 1_000_000  # pairs of hashes that are looked at together, which bounds the memory
PIECE = 10_000  # pairs of small pictures
_FREQUENCIES = 32  # the hash takes 8 × 8 of them
# a fixed order that mixes low and high frequencies in each part: neighbouring bits agree too often
_ORDER = np.random.default_rng(0x9A5).permutation(BITS)

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]


def small_picture(image: Image.Image) -> NDArray[np.uint8]:
    """The whole RGB picture, whatever its shape, as 608 bytes: luma (24, 24), then chroma (4, 4) twice."""
    reduced = image.resize((2 * DETAIL, 2 * DETAIL), Image.Resampling.BOX).convert("YCbCr")
    luma, *chroma = reduced.split()
    parts = [luma.resize((DETAIL, DETAIL), Image.Resampling.BOX)]
    parts += [band.resize((TINT, TINT), Image.Resampling.BOX) for band in chroma]
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def perceptual_hash(luma: Image.Image) -> int:
    """64 bits of an "L" image that scaling, recompression and brightness hardly change."""
    from scipy.fft import dctn

    pixels = np.asarray(luma.resize((_FREQUENCIES, _FREQUENCIES), Image.Resampling.BOX), np.float32)
    low = dctn(pixels, type=2)[:8, :8].ravel()
    bits = (low > np.median(low))[_ORDER]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_groups(hashes: NDArray[np.uint64], pictures: NDArray[np.uint8]) -> list[list[int]]:
    """Groups of two or more pictures that are nearly the same, as rising positions, in the order of their first.

    Args:
        hashes: (n,) perceptual hashes.
        pictures: (n, 608) the small pictures.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(hashes)
    family = np.arange(n)
    for pair in _pieces(_candidates(hashes)):
        new = family[pair[0]] != family[pair[1]]  # a family of thousands is compared once, not pair by pair
        left, right = pair[0][new], pair[1][new]
        same = alike(pictures[left], pictures[right])
        if same.any():
            links = (family[left[same]], family[right[same]])
            graph = coo_array((np.ones(len(links[0]), np.int32), links), shape=(n, n))
            family = connected_components(graph, directed=False)[1][family]
    return groups_of(family)


def _pieces(batches: Iterable[Pairs]) -> Iterator[Pairs]:
    """The pairs in pieces that are small enough to be compared together."""
    for left, right in batches:
        for start in range(0, len(left), PIECE):
            yield left[start : start + PIECE], right[start : start + PIECE]


def alike(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether small pictures (n, 608) are the same but for encoding, scale, brightness, or one being grey."""
    answer: NDArray[np.bool_] = (likeness(a, b) >= LIKENESS) & (_tint_difference(a, b) <= TINT_DIFFERENCE)
    return answer


def likeness(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The correlation of the detail in small pictures (n, 608): 1 for equal ones, about 0 for strangers."""
    x, y = _detail(a), _detail(b)
    scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    correlation: NDArray[np.float32] = (x * y).sum(axis=1) / np.maximum(scale, 1e-6)
    return correlation


def _detail(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Luma without its 3 × 3 mean: silhouettes on one background, which all agree, weigh little."""
    from scipy.ndimage import uniform_filter

    luma = pictures[:, : DETAIL * DETAIL].reshape(-1, DETAIL, DETAIL).astype(np.float32)
    flat = (luma - uniform_filter(luma, (0, 3, 3))).reshape(-1, DETAIL * DETAIL)
    detail: NDArray[np.float32] = flat - flat.mean(axis=1, keepdims=True)
    return detail


def _tint_difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    x, y = (part[:, DETAIL * DETAIL :].astype(np.float32) - 128 for part in (a, b))
    difference = np.abs(x - y).mean(axis=1)
    colourless = np.minimum(np.abs(x).mean(axis=1), np.abs(y).mean(axis=1)) < COLOURLESS
    answer: NDArray[np.float32] = np.where(colourless, 0.0, difference)
    return answer


def _candidates(hashes: NDArray[np.uint64]) -> Iterator[Pairs]:
    """Pairs (i < j) of hashes that differ in at most `MOST_BITS` bits, in batches; a pair may come again."""
    width = BITS // PARTS
    flips = [0, *(1 << bit for bit in range(width))]
    for part in range(PARTS):
        keys = (hashes >> np.uint64(part * width) & np.uint64((1 << width) - 1)).astype(np.int64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for flip in flips:
            wanted = keys ^ flip
            first, last = np.searchsorted(ordered, wanted, "left"), np.searchsorted(ordered, wanted, "right")
            for left, right in _expand(first, last, order):
                close = (left < right) & (np.bitwise_count(hashes[left] ^ hashes[right]) <= MOST_BITS)
                if close.any():
                    yield left[close], right[close]


def _expand(first: NDArray[np.intp], last: NDArray[np.intp], order: NDArray[np.intp]) -> Iterator[Pairs]:
    """Every i with each of order[first[i]:last[i]], about `CHUNK` pairs at a time."""
    counts = last - first
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, "right")))
        some = counts[start:stop]
        left = np.repeat(np.arange(start, stop), some)
        within = np.arange(len(left)) - np.repeat(np.cumsum(some) - some, some)
        yield left, order[np.repeat(first[start:stop], some) + within]
        start = stop


def groups_of(family: NDArray[np.intp]) -> list[list[int]]:
    """The positions of each number that occurs more than once."""
    order = np.argsort(family, kind="stable")
    cuts = np.flatnonzero(np.diff(family[order])) + 1
    return sorted(group.tolist() for group in np.split(order, cuts) if len(group) > 1)
