"""Labels are matched by name, whatever else there is."""

from pathlib import Path

import pytest

from taxonet.data import ClassIndex, Finding, Sample, sort_by_known
from taxonet.errors import DataError

INDEX = ClassIndex(("zebra", "ant", "Käfer"))


def test_the_index_is_the_place_in_the_model():
    assert [INDEX[name] for name in ("ant", "Käfer", "zebra")] == [1, 2, 0]
    assert len(INDEX) == 3
    assert "ant" in INDEX
    assert "Ant" not in INDEX


@pytest.mark.parametrize(("name", "hint"), [("Zebra", "; did you mean 'zebra'?"), ("wolf", "")])
def test_an_unknown_class_raises_with_the_nearest_name(name, hint):
    with pytest.raises(DataError) as caught:
        INDEX[name]
    assert str(caught.value) == f"the model has no class '{name}'{hint}"


def test_equal_names_are_refused():
    with pytest.raises(DataError, match="not unique"):
        ClassIndex(("cat", "dog", "cat"))


def test_samples_of_unknown_classes_become_findings():
    samples = [Sample(Path(f"{label}.png"), label) for label in ("ant", "aunt", "zebra", "xyz")]
    known, findings = sort_by_known(samples, INDEX)
    assert known == [samples[0], samples[2]]
    assert findings == [
        Finding("aunt.png", "the model has no class 'aunt'; did you mean 'ant'?"),
        Finding("xyz.png", "the model has no class 'xyz'"),
    ]
