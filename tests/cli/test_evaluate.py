"""`taxonet evaluate`: figures as text and JSON, findings, and data that cannot be measured."""

import json
import shutil

import pytest

from taxonet.cli.app import main


@pytest.fixture
def evaluate(small_bundle, capsys):
    def run(*words):
        status = main(["evaluate", str(small_bundle), *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_json(evaluate, fill, tmp_path):
    status, out, err = evaluate(fill(tmp_path, red=3, green=2, blue=1), "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert {"n", "top1", "top5", "top1_ci", "ece", "per_class", "errors"} <= found.keys()
    assert (found["n"], found["top1"], found["top5"], found["errors"]) == (6, 1.0, 1.0, [])
    low, high = found["top1_ci"]
    assert low == pytest.approx(0.6097, abs=1e-4)  # Wilson's interval of 6 of 6
    assert high == 1.0
    assert [(score["label"], score["n"]) for score in found["per_class"]] == [("red", 3), ("green", 2), ("blue", 1)]


def test_text(evaluate, fill, tmp_path):
    status, out, err = evaluate(fill(tmp_path / "test", red=3, blue=1).parent)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "pictures    4  (split: test)"
    assert lines[1].startswith("top-1       1.0000  (95 % interval 0.5101 to 1.0000)")
    assert ["red", "3", "1.000", "1.000", "1.000"] in [line.split() for line in lines]
    assert "without pictures: green (1 class)" in out


def test_a_class_unknown_to_the_model_is_a_finding_and_status_1(evaluate, fill, paint, tmp_path, broken_jpeg):
    fill(tmp_path, red=2)
    stranger = paint(tmp_path / "Green" / "1.png", "green")
    shutil.copy(broken_jpeg, tmp_path / "red" / "broken.jpg")
    status, out, err = evaluate(tmp_path, "--json")
    assert (status, err) == (1, "")
    found = json.loads(out)
    assert (found["n"], found["top1"]) == (2, 1.0)
    unknown, broken = found["errors"]
    assert unknown == {"path": str(stranger), "error": "the model has no class 'Green'; did you mean 'green'?"}
    assert broken["path"] == str(tmp_path / "red" / "broken.jpg")

    status, out, _ = evaluate(tmp_path)
    assert status == 1
    assert "not scored (2):" in out
    assert f"  {stranger}: the model has no class 'Green'; did you mean 'green'?" in out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["photoss"], 3, "photoss does not exist; did you mean 'photos'?"),
        (["hollow"], 3, "hollow holds no pictures in class folders"),
        (["strange"], 3, "no class of the data is known to the model"),
        (["notes.txt"], 3, "notes.txt is neither a folder nor a .csv or .parquet file"),
        (["photos", "--split", "tset"], 2, "photos has no split 'tset', it has: all"),
        (["photos", "--engine", "onnx"], 2, "there is no engine 'onnx'"),
    ],
)
def test_what_cannot_be_done(evaluate, fill, paint, tmp_path, monkeypatch, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", red=1)
    paint(tmp_path / "strange" / "cat" / "1.png")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "notes.txt").touch()
    found, out, err = evaluate(*words, "--json")
    assert (found, out) == (status, "")
    assert err.startswith(f"taxonet: {sentence}")
    assert err.count("\n") == 1


def test_views_robustness_and_a_page(evaluate, fill, tmp_path):
    photos, page = fill(tmp_path / "photos", red=3, blue=2), tmp_path / "page.html"
    words = (photos, "--tta", "flip", "--robustness-pictures", 4, "--html", page)
    status, out, err = evaluate(*words, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["tta"]["passes"], found["robustness"]["n"], found["robustness"]["of"]) == (2, 4, 5)
    assert "flip: 2 passes of the network a picture" in page.read_text("utf-8")

    status, out, _ = evaluate(*words)
    assert status == 0
    assert "views       flip: top-1 1.0000 without" in out
    assert "robustness: 4 of 5 pictures, 2 a class" in out
    assert [line.split()[0] for line in out.splitlines() if line.startswith(("noise", "rotation"))] == [
        "noise",
        "rotation",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--tta", "flop"), "there is no view 'flop', it must be flip, crops or scales, or several; did you mean"),
        (("--robustness-pictures", "0"), "--robustness-pictures is 0, it must be at least 1"),
        (("--html", "photos"), "--html is photos, which is a folder, and a file is wanted"),
        (("--html", "nowhere/x.html"), "the folder nowhere of --html does not exist"),
    ],
)
def test_wrong_options(evaluate, fill, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", red=1)
    status, out, err = evaluate("photos", *words)
    assert (status, out) == (2, "")
    assert err.startswith(f"taxonet: {sentence}")
