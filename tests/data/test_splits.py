"""The validation split that Taxonet makes: stratified, seeded, the same everywhere."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taxonet.data import Sample, read_data, stratified_split
from taxonet.errors import UsageError


def samples(**counts):
    return tuple(Sample(Path(label, f"{i:03}.png"), label) for label, count in counts.items() for i in range(count))


def labels(part):
    return Counter(sample.label for sample in part)


@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 30), min_size=1),
    fraction=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_class_is_on_both_sides_where_it_can_be(counts, fraction, seed):
    every = samples(**counts)
    train, val = stratified_split(every, fraction, seed)
    assert sorted((*train, *val), key=lambda s: s.path) == sorted(every, key=lambda s: s.path)
    for label, count in counts.items():
        held_out = labels(val)[label]
        if count == 1:
            assert held_out == 0
        else:
            assert 1 <= held_out <= count - 1
            assert abs(held_out - fraction * count) <= 1


def test_the_fraction_is_that_of_each_class():
    _, val = stratified_split(samples(cat=100, dog=20, emu=5, one=1), 0.2, seed=0)
    assert labels(val) == {"cat": 20, "dog": 4, "emu": 1}


def test_the_order_of_the_samples_is_kept():
    every = samples(cat=10, dog=10)
    train, val = stratified_split(every, 0.3, seed=1)
    assert list(train) == [s for s in every if s in train]
    assert list(val) == [s for s in every if s in val]


def test_the_seed_decides():
    every = samples(cat=40, dog=40)
    first = stratified_split(every, 0.25, seed=7)
    assert stratified_split(every, 0.25, seed=7) == first
    assert stratified_split(every, 0.25, seed=8) != first


def test_the_order_of_the_classes_does_not_matter():
    cats, dogs = samples(cat=20), samples(dog=20)
    _, one = stratified_split((*cats, *dogs), 0.3, seed=5)
    _, two = stratified_split((*dogs, *cats), 0.3, seed=5)
    assert set(one) == set(two)


def test_a_known_split_stays_the_same_from_version_to_version():
    _, val = stratified_split(samples(cat=8, dog=8), 0.25, seed=0)
    assert [str(sample.path) for sample in val] == ["cat/000.png", "cat/002.png", "dog/004.png", "dog/006.png"]


def test_the_order_in_which_files_were_written_does_not_matter(tmp_path):
    chosen = []
    for home, order in (("one", range(20)), ("two", reversed(range(20)))):
        for number in order:
            path = tmp_path / home / "cat" / f"{number:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        _, val = stratified_split(read_data(tmp_path / home).samples, 0.3, seed=3)
        chosen.append([sample.path.name for sample in val])
    assert chosen[0] == chosen[1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_that_is_none(fraction):
    with pytest.raises(UsageError, match=r"val_fraction is .*, it must be above 0 and below 1"):
        stratified_split(samples(cat=4), fraction, seed=0)
