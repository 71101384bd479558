"""The search for near duplicates: as comparing all with all, whatever the order of the bits."""

import itertools

import numpy as np
import pytest

from taxonet.checking.near import MOST_BITS, SMALL_BYTES, _candidates, near_groups


def brute(hashes):
    pairs = itertools.combinations(range(len(hashes)), 2)
    return {(i, j) for i, j in pairs if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= MOST_BITS}


@pytest.mark.parametrize("seed", range(5))
def test_every_close_pair_is_found_and_no_other(seed):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**63, 300, dtype=np.uint64)
    for i in range(100):  # relatives that differ in 0 to 11 bits
        flips = rng.choice(64, rng.integers(0, 12), replace=False)
        hashes[200 + i] = hashes[i] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    found = {(int(i), int(j)) for left, right in _candidates(hashes) for i, j in zip(left, right, strict=True)}
    assert found == brute(hashes)
    assert len(found) > 40


def test_no_pair_costs_no_more_memory_than_a_batch(monkeypatch):
    """A family of copies: its pairs come in batches, none longer than asked for by more than one row."""
    monkeypatch.setattr("taxonet.checking.near.CHUNK", 1000)
    hashes = np.full(400, 12345, np.uint64)
    assert max(len(left) for left, _ in _candidates(hashes)) <= 1000


def test_a_large_family_is_one_group():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (3000, SMALL_BYTES), dtype=np.uint8)
    hashes = rng.integers(0, 2**63, 3000, dtype=np.uint64)
    pictures[1000:], hashes[1000:] = pictures[1000], hashes[1000]
    assert near_groups(hashes, pictures) == [list(range(1000, 3000))]


def test_equal_hashes_of_different_pictures_are_no_group():
    pictures = np.random.default_rng(0).integers(0, 255, (50, SMALL_BYTES), dtype=np.uint8)
    assert near_groups(np.zeros(50, np.uint64), pictures) == []


def test_groups_are_closed_under_likeness_and_in_order():
    rng = np.random.default_rng(1)
    pictures = rng.integers(0, 255, (6, SMALL_BYTES), dtype=np.uint8)
    hashes = rng.integers(0, 2**63, 6, dtype=np.uint64)
    for copy, original in ((5, 0), (3, 0), (4, 2)):
        pictures[copy], hashes[copy] = pictures[original], hashes[original]
    assert near_groups(hashes, pictures) == [[0, 3, 5], [2, 4]]
