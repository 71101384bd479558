"""Evaluation on folders and tables: labels by name, and a finding for whatever was not scored."""

import json
import shutil

import pytest

from taxonet import evaluate
from taxonet.cli.app import main
from taxonet.data import read_data
from taxonet.data.trained_on import count_trained_on
from taxonet.errors import BundleError, DataError, UsageError


def test_classes_are_matched_by_name_not_by_place(small_bundle, fill, tmp_path):
    fill(tmp_path, red=4, green=3, blue=2)  # in alphabetical order the classes would be blue, green, red
    found = evaluate(small_bundle, tmp_path)
    assert [(score.label, score.n, score.recall) for score in found.metrics.per_class] == [
        ("red", 4, 1.0),
        ("green", 3, 1.0),
        ("blue", 2, 1.0),
    ]
    assert found.metrics.confusion == ((4, 0, 0), (0, 3, 0), (0, 0, 2))
    assert (found.metrics.n, found.metrics.top1, found.split, found.findings) == (9, 1.0, "all", ())
    assert all(outcome.answer == outcome.sample.label == outcome.sample.path.parent.name for outcome in found.outcomes)


def test_a_class_that_the_data_lacks(colour_classifier, fill, tmp_path):
    found = evaluate(colour_classifier, fill(tmp_path, green=2, blue=3))
    red, green, blue = found.metrics.per_class
    assert (red.n, red.recall, red.f1) == (0, None, None)
    assert (green.recall, blue.recall) == (1.0, 1.0)
    assert found.metrics.balanced_accuracy == 1.0
    assert found.findings == ()


def test_a_class_that_the_model_lacks_is_not_scored(colour_classifier, fill, paint, tmp_path):
    fill(tmp_path, red=2, blue=2)
    strangers = [paint(tmp_path / "greeen" / f"{i}.png", "green", seed=i) for i in range(2)]
    found = evaluate(colour_classifier, tmp_path)
    assert found.metrics.n == 4
    assert found.metrics.top1 == 1.0
    assert [(f.path, f.reason) for f in found.findings] == [
        (str(path), "the model has no class 'greeen'; did you mean 'green'?") for path in strangers
    ]
    assert [error["path"] for error in found.as_dict()["errors"]] == list(map(str, strangers))


def test_a_wrong_label_counts_as_a_mistake(colour_classifier, fill, paint, tmp_path):
    fill(tmp_path, red=3)
    mislabelled = paint(tmp_path / "red" / "9.png", "blue")
    found = evaluate(colour_classifier, tmp_path)
    assert found.metrics.top1 == 0.75
    assert found.metrics.confusion == ((3, 0, 1), (0, 0, 0), (0, 0, 0))
    (mistake,) = [outcome for outcome in found.outcomes if outcome.answer != outcome.sample.label]
    assert (mistake.sample.path, mistake.answer) == (mislabelled, "blue")
    assert 1 / 3 < mistake.probability <= 1


def test_broken_pictures_and_stray_files_are_findings(colour_classifier, fill, tmp_path, broken_jpeg):
    fill(tmp_path, red=2, blue=1)
    shutil.copy(broken_jpeg, tmp_path / "red" / "1-broken.jpg")
    (tmp_path / "blue" / "empty.png").touch()
    (tmp_path / "blue" / "notes.txt").touch()
    found = evaluate(colour_classifier, tmp_path)
    assert found.metrics.n == 3
    assert found.metrics.top1 == 1.0  # the neighbours keep their own answers
    assert {f.path.rpartition("/")[2]: f.reason.partition(":")[0] for f in found.findings} == {
        "1-broken.jpg": "the JPEG picture is truncated or damaged",
        "empty.png": "the file is empty",
        "notes.txt": "'.txt' is not a picture's extension",
    }


@pytest.mark.parametrize(
    ("splits", "asked", "chosen", "n"),
    [
        (("train", "val", "test"), None, "test", 3),
        (("train", "val"), None, "val", 2),
        (("train",), None, "all", 1),
        (("train", "val", "test"), "train", "train", 1),
        (("train", "val", "test"), "validation", "val", 2),
    ],
)
def test_which_split_is_measured(colour_classifier, fill, tmp_path, splits, asked, chosen, n):
    counts = {"train": 1, "val": 2, "test": 3}
    for name in splits:
        fill(tmp_path / name, red=counts[name])
    found = evaluate(colour_classifier, tmp_path, split=asked)
    assert found.metrics.n == n
    if asked in (None, chosen):
        assert found.split == chosen


def test_a_table(colour_classifier, fill, tmp_path):
    fill(tmp_path / "pictures", red=1, green=1)
    rows = ["path,label", "pictures/red/0.png,red", "pictures/green/0.png,green", "pictures/gone.png,blue"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    found = evaluate(colour_classifier, tmp_path / "list.csv")
    assert (found.metrics.n, found.metrics.top1) == (2, 1.0)
    assert [f.reason for f in found.findings] == ["the file does not exist"]


def test_progress_is_told(colour_classifier, fill, tmp_path):
    seen = []
    evaluate(colour_classifier, fill(tmp_path, red=2, blue=1), progress=lambda *numbers: seen.append(numbers))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_data_that_cannot_be_measured(colour_classifier, paint, tmp_path, broken_jpeg):
    paint(tmp_path / "strange" / "cat" / "1.png")
    with pytest.raises(DataError, match=r"no class of the data is known to the model \(data: cat .*model: red, green"):
        evaluate(colour_classifier, tmp_path / "strange")
    (tmp_path / "broken" / "red").mkdir(parents=True)
    shutil.copy(broken_jpeg, tmp_path / "broken" / "red")
    with pytest.raises(DataError, match=r"not one of the 1 pictures can be read, the first: the JPEG picture is trunc"):
        evaluate(colour_classifier, tmp_path / "broken")
    with pytest.raises(UsageError, match="has no split 'test', it has: all"):
        evaluate(colour_classifier, tmp_path / "strange", split="test")
    with pytest.raises(BundleError, match="there is no such file"):
        evaluate(tmp_path / "gone.safetensors", tmp_path / "strange")


def test_the_json_form(colour_classifier, fill, tmp_path):
    fields = evaluate(colour_classifier, fill(tmp_path, red=2, blue=1)).as_dict()
    assert {"split", "n", "top1", "top5", "top1_ci", "ece", "per_class", "errors"} <= fields.keys()
    absent = {"recall": None, "precision": None, "f1": None, "recall_ci": None, "precision_ci": None}
    assert fields["per_class"][1] == {"label": "green", "n": 0} | absent
    json.dumps(fields, allow_nan=False)


def test_figures_on_photos_that_were_trained_on_are_told_to_flatter(small_bundle, fill, tmp_path, capsys):
    data = fill(tmp_path / "data", red=3, green=3)
    run = tmp_path / "run"
    run.mkdir()
    bundle = shutil.copy(small_bundle, run / "model.safetensors")
    trained = [data / "red" / "0.png", data / "green" / ".." / "green" / "1.png"]
    (run / "train.csv").write_text("path,label\n" + "".join(f"{path},x\n" for path in trained))
    assert evaluate(bundle, data).trained_on == 0  # a table beside a bundle that is in no run's folder
    (run / "run.json").write_text("{}")
    told = "warning: the model was trained on 2 of these 6 pictures (train.csv beside it), so its figures here flatter"
    assert main(["evaluate", str(bundle), str(data)]) == 0
    assert told in capsys.readouterr().out
    page = tmp_path / "page.html"
    found = evaluate(bundle, data, html=page)
    assert (found.trained_on, found.as_dict()["trained_on"]) == (2, 2)
    assert "trained on 2 of these 6 pictures" in page.read_text()
    assert main(["calibrate", str(bundle), str(data)]) == 0
    assert told in capsys.readouterr().out
    other = shutil.copy(small_bundle, tmp_path / "other.safetensors")
    assert main(["compare", str(bundle), str(other), "--data", str(data), "--runs", "0"]) == 0
    assert "warning: run was trained on 2 of these 6 pictures" in capsys.readouterr().out
    assert evaluate(other, data).trained_on == 0


def test_five_classes_or_fewer_have_no_top_5_to_tell(small_bundle, fill, tmp_path, capsys):
    assert main(["evaluate", str(small_bundle), str(fill(tmp_path / "data", red=3, green=3))]) == 0
    assert "top-5" not in capsys.readouterr().out


def test_many_pictures_of_unknown_classes_are_not_all_printed(small_bundle, fill, paint, tmp_path, capsys):
    data = fill(tmp_path / "data", red=3)
    for i in range(25):
        paint(data / "violet" / f"{i}.png")
    assert main(["evaluate", str(small_bundle), str(data)]) == 1
    out = capsys.readouterr().out
    assert out.count("violet/") == 20
    assert "… and 5 more (--json has all)" in out


def test_a_train_csv_where_one_happens_to_be_is_not_a_catalogue_models(fill, tmp_path, monkeypatch):
    data = fill(tmp_path / "data", red=1, green=1)
    (tmp_path / "train.csv").write_text("path\n" + "".join(f"{path}\n" for path in data.rglob("*.png")))
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert count_trained_on("efficientnet_lite0", read_data(data).samples) == 0
