"""What `train` leaves out and warns about by itself, and the list of `--exclude`."""

import csv
import json
import shutil

import pytest
import torch
from tests.training.conftest import QUICK, write_colours

import taxonet
from taxonet.errors import DataError, UsageError
from taxonet.training.screening import asked_exclusions, prepare
from taxonet.weights.bundle import read_tensors


@pytest.fixture
def splits(tmp_path):
    write_colours(tmp_path / "data" / "train", 12)
    write_colours(tmp_path / "data" / "val", 4, seed=1)
    return tmp_path / "data"


def copy(root, old, new):
    shutil.copy(root / old, root / new)


def table(run, name):
    with (run / f"{name}.csv").open() as file:
        return {row["path"] for row in csv.DictReader(file)}


def test_a_copy_of_a_validation_picture_is_not_trained_on(splits, tmp_path):
    copy(splits, "val/red/001.png", "train/red/copy.png")
    result = taxonet.train(splits, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    assert str(splits / "train" / "red" / "copy.png") not in table(result.run, "train")
    assert str(splits / "val" / "red" / "001.png") in table(result.run, "val")
    assert [f.path for f in result.findings] == [str(splits / "train" / "red" / "copy.png")]
    assert "val/red/001.png" in result.findings[0].reason
    facts = json.loads((result.run / "run.json").read_text())
    assert [issue["path"] for issue in facts["copies_left_out"]] == ["train/red/copy.png"]
    assert "train/red/copy.png" in result.report.read_text()


def test_on_demand_it_is(splits):
    copy(splits, "val/red/001.png", "train/red/copy.png")
    assert len(prepare(splits, 0.2, 0, None, check=False).split.train) == 37
    assert len(prepare(splits, 0.2, 0, None, check=True).split.train) == 36


def test_every_copy_and_across_classes(splits):
    for name in ("red/a", "red/b", "blue/c"):
        copy(splits, "val/red/001.png", f"train/{name}.png")
    screened = prepare(splits, 0.2, 0, None, check=True)
    assert {issue.path for issue in screened.left_out} == {f"train/{n}.png" for n in ("red/a", "red/b", "blue/c")}
    assert [issue.kind for issue in screened.warnings] == ["two_classes"]
    assert not any(line.startswith("warning: exact") for line in screened.lines())


def test_a_photo_in_two_classes_stays_and_is_warned_about(splits, tmp_path, capsys):
    copy(splits, "train/red/001.png", "train/blue/copy.png")
    result = taxonet.train(splits, out=tmp_path / "run", progress=True, **{**QUICK, "epochs": 1})
    assert len(table(result.run, "train")) == 37
    assert result.findings == ()
    assert [issue.kind for issue in result.warnings] == ["two_classes"]
    assert "warning: one photo in two classes: 1 (train/blue/copy.png = train/red/001.png)" in capsys.readouterr().err
    assert "one photo in two classes" in result.report.read_text()


def test_copies_within_data_without_splits_do_not_leak(colours, tmp_path):
    """The split made here may put a photo into validation and its copy into training."""
    data = shutil.copytree(colours, tmp_path / "data")
    for label in ("red", "blue", "green"):
        for number in range(20):
            copy(data, f"{label}/{number:03d}.png", f"{label}/copy{number:03d}.png")
    split = prepare(data, 0.2, 0, None, check=True).split
    held = {sample.path.read_bytes() for sample in split.val}
    assert held
    assert not any(sample.path.read_bytes() in held for sample in split.train)


def test_a_class_of_nothing_but_copies_is_refused(splits):
    shutil.rmtree(splits / "train" / "red")
    shutil.copytree(splits / "val" / "red", splits / "train" / "red")
    with pytest.raises(DataError, match=r"every training picture of the class 'red'.*--no-check"):
        prepare(splits, 0.2, 0, None, check=True)


def test_classes_with_few_pictures_are_warned_about(splits):
    for number in range(8):
        (splits / "train" / "red" / f"{number:03d}.png").unlink()
    screened = prepare(splits, 0.2, 0, None, check=True)
    assert screened.lines() == [
        "warning: the class 'red' has 4 pictures, the largest, 'blue', has 12; collect more pictures of this class"
    ]


@pytest.fixture
def listed(tmp_path):
    (tmp_path / "list.txt").write_text("# remark\nred/003.png\nred/004.png\nblue/nothing.png\n")
    return tmp_path / "list.txt"


def test_a_list_is_left_out_recorded_and_kept_by_a_resumed_run(colours, listed, tmp_path):
    options = {**QUICK, "epochs": 2}
    first = taxonet.train(colours, out=tmp_path / "run", exclude=listed, **options)
    left = {str(colours / "red" / "003.png"), str(colours / "red" / "004.png")}
    assert not left & (table(first.run, "train") | table(first.run, "val"))
    assert [(f.path, "no such picture" in f.reason) for f in first.findings] == [("blue/nothing.png", True)]
    facts = json.loads((first.run / "run.json").read_text())
    assert facts["exclude"] == {"list": str(listed), "paths": ["red/003.png", "red/004.png", "blue/nothing.png"]}
    listed.unlink()
    again = taxonet.train(colours, out=tmp_path / "run", resume=True)
    assert again.validation.metrics.top1 == first.validation.metrics.top1
    assert table(again.run, "train") == table(first.run, "train")


def test_a_resumed_run_refuses_another_list_or_no_check(colours, listed, tmp_path):
    taxonet.train(colours, out=tmp_path / "run", exclude=listed, **{**QUICK, "epochs": 1})
    other = tmp_path / "other.txt"
    other.write_text("red/005.png\n")
    with pytest.raises(UsageError, match="keeps its list"):
        taxonet.train(colours, out=tmp_path / "run", resume=True, exclude=other)
    with pytest.raises(UsageError, match="--no-check cannot change that"):
        taxonet.train(colours, out=tmp_path / "run", resume=True, check=False)


def test_the_copied_list_repeats_the_run(colours, listed, tmp_path):
    options = {**QUICK, "epochs": 1}
    first = taxonet.train(colours, out=tmp_path / "run", exclude=listed, **options)
    again = taxonet.train(colours, out=tmp_path / "again", exclude=first.run / "exclude.txt", **options)
    one, two = read_tensors(first.bundle), read_tensors(again.bundle)
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert "--exclude" in first.report.read_text()


def test_a_class_that_a_list_empties_is_said(colours, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"red/{n:03d}.png\n" for n in range(20)))
    split = prepare(colours, 0.2, 0, asked_exclusions(tmp_path / "list.txt"), check=True).split
    assert split.classes == ("blue", "green")
    assert [(f.path, "every picture" in f.reason) for f in split.findings] == [("red", True)]


def test_a_list_of_other_data(colours, tmp_path):
    (tmp_path / "list.txt").write_text("photos/red/003.png\n")
    with pytest.raises(UsageError, match="names no picture"):
        taxonet.train(colours, out=tmp_path / "run", exclude=tmp_path / "list.txt", **QUICK)
    assert not (tmp_path / "run").exists()
