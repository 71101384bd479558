"""Which photos calibrate and which measure."""

from collections import Counter

import pytest

from taxonet.console import Silent
from taxonet.data import read_data
from taxonet.errors import DataError
from taxonet.images import DEFAULT_LIMITS, Preprocessing
from taxonet.inference.int8.photos import balanced, divide, read


@pytest.fixture(scope="module")
def uneven(fill, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("uneven"), red=12, green=6, blue=3)


def paths(samples):
    return {sample.path for sample in samples}


def test_calibration_and_measured_photos_share_none_and_leave_none_out(uneven, colours):
    data = read_data(uneven)
    parts = divide(data, colours)
    assert not paths(parts.calibration) & paths(parts.measured)
    assert paths(parts.calibration) | paths(parts.measured) == paths(data.samples)
    assert not parts.separate


def test_the_draw_is_balanced_over_classes_whatever_their_sizes(uneven):
    drawn = balanced(read_data(uneven).samples, 9, seed=0)
    assert Counter(sample.label for sample in drawn) == {"red": 3, "green": 3, "blue": 3}


def test_a_class_that_runs_out_leaves_its_place_to_the_others(uneven):
    drawn = balanced(read_data(uneven).samples, 18, seed=0)
    assert len(drawn) == 18
    assert Counter(sample.label for sample in drawn)["blue"] == 3


def test_the_seed_decides_which_photos_and_the_order_of_the_data_does_not(uneven):
    samples = read_data(uneven).samples
    assert balanced(samples, 6, seed=1) == balanced(samples[::-1], 6, seed=1)
    assert paths(balanced(samples, 6, seed=1)) != paths(balanced(samples, 6, seed=2))


def test_train_calibrates_val_chooses_and_test_measures(fill, tmp_path, colours):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        fill(tmp_path / split, red=count, green=count, blue=count)
    parts = divide(read_data(tmp_path), colours)
    where = [{path.parts[-3] for path in paths(part)} for part in (parts.calibration, parts.choosing, parts.measured)]
    assert where == [{"train"}, {"val"}, {"test"}]
    assert parts.separate


def test_without_a_test_split_the_validation_photos_choose_and_measure(fill, tmp_path, colours):
    for split in ("train", "val"):
        fill(tmp_path / split, red=2, green=2, blue=2)
    parts = divide(read_data(tmp_path), colours)
    assert parts.choosing is parts.measured
    assert "measured on val" in parts.origin


def test_photos_of_classes_that_the_model_lacks_are_findings(fill, paint, tmp_path, colours):
    fill(tmp_path, red=3, green=3, blue=3)
    paint(tmp_path / "gren" / "0.png")
    parts = divide(read_data(tmp_path), colours)
    assert ["did you mean 'green'" in finding.reason for finding in parts.findings] == [True]


def test_one_photo_is_too_few(fill, paint, tmp_path, colours):
    paint(tmp_path / "grin" / "0.png")
    with pytest.raises(DataError, match=r"holds 1 photo of the model's classes \(.*red.*\), its own are .*grin"):
        divide(read_data(fill(tmp_path, red=1)), colours)


def test_a_table_that_repeats_one_photo_leaves_none_to_measure(fill, tmp_path, colours):
    (photo,) = fill(tmp_path, red=1).rglob("*.png")
    (tmp_path / "table.csv").write_text("path,label\n" + f"{photo},red\n" * 3)
    parts = divide(read_data(tmp_path / "table.csv"), colours)
    with pytest.raises(DataError, match="no photos are left for 'measured'"):
        read(
            parts.measured,
            colours,
            Preprocessing.parse("rgb | resize(8) | normalize(unit)"),
            DEFAULT_LIMITS,
            Silent(),
            "measured",
        )
