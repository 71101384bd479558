"""`taxonet predict`: text, JSON and CSV, with an error for whatever cannot be read."""

import csv
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from taxonet.cli.app import main


@pytest.fixture
def predict(small_bundle, capsys):
    """Run `taxonet predict … -m BUNDLE`: (status, stdout, stderr)."""

    def run(*words):
        status = main(["predict", *map(str, words), "-m", str(small_bundle)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def photos(fill, tmp_path):
    """red/0.png, red/1.png, blue/0.png in a folder."""
    return fill(tmp_path / "photos", red=2, blue=1)


def test_text_is_one_line_a_picture(predict, photos):
    status, out, err = predict(photos / "red" / "0.png", photos / "blue", "--top", 2)
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith(f"{photos / 'red' / '0.png'}")
    assert first.split()[1] == "red"
    assert second.split()[1] == "blue"
    assert second.count(",") == 1  # two classes


def test_json_is_one_document_with_one_object_a_picture(predict, photos, small_bundle):
    status, out, err = predict(photos, "--json", "--top", 1)
    assert (status, err) == (0, "")
    answers = json.loads(out)
    assert [answer["path"] for answer in answers] == [
        str(photos / name) for name in ("blue/0.png", "red/0.png", "red/1.png")
    ]
    for answer, label, index in zip(answers, ("blue", "red", "red"), (2, 0, 0), strict=True):
        assert answer.keys() == {"path", "predictions", "error", "abstained"}
        (best,) = answer["predictions"]
        assert (best["label"], best["index"], answer["error"]) == (label, index, None)
        assert 0 < best["probability"] <= 1


def test_broken_among_good_is_status_1_and_an_error_at_its_place(predict, photos, broken_jpeg, huge_png):
    (photos / "empty.jpg").touch()
    inputs = [photos / "red" / "0.png", broken_jpeg, photos / "gone.jpg", photos / "empty.jpg", huge_png]
    status, out, err = predict(*inputs, photos / "blue" / "0.png", "--json")
    assert (status, err) == (1, "")
    answers = json.loads(out)
    assert [answer["path"] for answer in answers] == [*map(str, inputs), str(photos / "blue" / "0.png")]
    errors = [answer["error"] for answer in answers]
    assert errors[0] is errors[5] is None
    assert [answers[i]["predictions"][0]["label"] for i in (0, 5)] == ["red", "blue"]
    assert errors[1].startswith("the JPEG picture is truncated or damaged")
    assert errors[2:4] == ["the file does not exist", "the file is empty"]
    assert errors[4] == "the image has 900,000,000 pixels (30000×30000), the limit is 200,000,000"
    assert all(answers[i]["predictions"] == [] for i in (1, 2, 3, 4))

    status, out, err = predict(*inputs)
    assert (status, err) == (1, "")
    assert [": " in line and "error: " in line for line in out.splitlines()] == [False, True, True, True, True]


def test_all_broken(predict, broken_jpeg, tmp_path):
    status, out, err = predict(broken_jpeg, tmp_path / "gone.jpg")
    assert (status, err) == (1, "")
    assert [line.count("error: ") for line in out.splitlines()] == [1, 1]


def test_a_path_that_is_misspelt_is_answered_with_the_nearest_name(predict, photos):
    status, out, _ = predict(photos / "red" / "0.pmg", photos / "red" / "0.png", "--json")
    found = json.loads(out)
    assert status == 1
    assert found[0]["error"] == "the file does not exist; did you mean '0.png'?"
    assert found[1]["error"] is None


def test_csv(predict, photos, broken_jpeg, tmp_path):
    table = tmp_path / "answers.csv"
    status, out, err = predict(photos / "red" / "0.png", broken_jpeg, "--csv", table, "--top", 2)
    assert (status, out) == (1, "")
    assert err == f"2 pictures, 1 of them could not be read: {table}\n"
    with table.open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "rank", "label", "index", "probability", "error", "abstained"]
    assert [row[:2] for row in rows[:2]] == [[str(photos / "red" / "0.png"), "1"], [str(photos / "red" / "0.png"), "2"]]
    assert (rows[0][2], rows[0][3], rows[0][5:]) == ("red", "0", ["", "no"])
    assert float(rows[0][4]) > float(rows[1][4])
    assert rows[2][:5] == [str(broken_jpeg), "", "", "", ""]
    assert rows[2][5].startswith("the JPEG picture is truncated")


def test_a_file_name_that_is_no_text(predict, photos):
    name = os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png")
    try:
        shutil.copy(photos / "red" / "0.png", name)
    except OSError:
        pytest.skip("the file system takes only names that are text")
    status, out, _ = predict(name, "--json")
    assert status == 0
    assert json.loads(out)[0]["path"] == name  # the very name, escaped
    status, out, _ = predict(name)
    assert status == 0
    assert r"caf\udce9.png" in out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["a.png", "--top", "0"], 2, "--top is 0, it must be at least 1"),
        (
            ["a.png", "--engine", "tourch"],
            2,
            "there is no engine 'tourch', it must be one of: auto, torch, openvino, onnxruntime; did you mean",
        ),
        (["a.png", "--json", "--csv", "x.csv"], 2, "--json and --csv exclude each other"),
        (["a.png", "--csv", "nowhere/x.csv"], 2, "the folder nowhere of --csv does not exist"),
        (["a.png", "--csv", "hollow"], 2, "--csv is hollow, which is a folder, and a file is wanted"),
        (["hollow"], 3, "hollow holds no pictures (formats: "),
        (["*.tiff"], 3, "no file matches *.tiff"),
        (["h*"], 3, "no file matches h*, only folders do"),
    ],
)
def test_what_cannot_be_done(predict, tmp_path, monkeypatch, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    (tmp_path / "a.png").touch()
    found, out, err = predict(*words)
    assert (found, out) == (status, "")
    assert err.startswith(f"taxonet: {sentence}")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "status", "sentence"),
    [
        (
            "efficentnet_lite0",
            2,
            "'efficentnet_lite0' is neither a file nor a network; did you mean 'efficientnet_lite0'?",
        ),
        ("densenet121", 2, "weights of densenet121 are not here yet: `taxonet pull densenet121.IMAGENET1K_V1`"),
        ("gone.safetensors", 3, "cannot read 'gone.safetensors': there is no such file"),
        ("photo.pn.xml", 3, "cannot read 'photo.pn.xml': there is no such file; did you mean 'photo.png'?"),
        ("photo.pmg", 2, "'photo.pmg' is neither a file nor weights of the catalogue; did you mean 'photo.png'?"),
        ("a.png", 3, "cannot read 'a.png': it is a photo, not a bundle"),
    ],
)
def test_models_that_are_none(tmp_path, monkeypatch, capsys, model, status, sentence):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (9, 9)).save("a.png")
    Path("photo.png").touch()
    assert main(["predict", "a.png", "-m", model, "--json"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"taxonet: {sentence}")
    assert captured.err.count("\n") == 1


def test_a_pickle_as_the_model(pickle_file, capsys):
    assert main(["predict", "a.png", "-m", str(pickle_file)]) == 3
    assert "it is a PyTorch pickle checkpoint, not a bundle; convert it with" in capsys.readouterr().err


def test_the_installed_command(run_taxonet, small_bundle, photos, broken_jpeg):
    """In a process of its own: JSON alone on stdout, nothing else on stderr, the status of findings."""
    ran = run_taxonet("predict", photos, broken_jpeg, "-m", small_bundle, "--json")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert [bool(answer["error"]) for answer in json.loads(ran.stdout)] == [False, False, False, True]


def test_the_default_model_knows_a_cup_of_coffee(capsys):
    from taxonet.assets import photo_paths

    assert main(["predict", str(photo_paths()[1]), "--top", "1"]) == 0
    assert "espresso" in capsys.readouterr().out


def test_a_threshold_says_none_of_these(predict, photos, broken_jpeg, tmp_path):
    status, out, _ = predict(photos / "red", broken_jpeg, "--threshold", 1, "--json")
    assert status == 1
    first, _, broken = json.loads(out)
    assert (first["abstained"], first["predictions"][0]["label"], broken["abstained"]) == (True, "red", False)

    _, out, _ = predict(photos / "red" / "0.png", "--threshold", 1, "--top", 1)
    assert "  none of these (red 0." in out
    _, out, _ = predict(photos / "red" / "0.png", "--threshold", 0, "--top", 1)
    assert "none of these" not in out

    predict(photos / "red" / "0.png", "--threshold", 1, "--csv", tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        assert {row["abstained"] for row in csv.DictReader(file)} == {"yes"}

    status, _, err = predict(photos, "--threshold", 50)
    assert (status, err) == (2, "taxonet: --threshold is 50.0, it must be a probability from 0 to 1\n")


def test_a_list_that_is_empty_is_said_to_be(predict, small_bundle, tmp_path):
    (tmp_path / "list.txt").touch()
    status, out, err = predict("--list", tmp_path / "list.txt")
    assert (status, out, err) == (0, "", "no pictures: the lists and tables are empty\n")


def test_a_table_of_answers_takes_the_place_of_nothing_else(predict, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    photo = photos / "red" / "0.png"
    before = photo.read_bytes()
    (photos / "list.csv").write_text("path\nred/0.png\n")
    (photos / "plain.txt").write_text("red/0.png\n")
    for words, sentence in (
        ((photo, "--csv", photo), "which is also an input"),
        (("list.csv", "--csv", "list.csv"), "--csv is list.csv, which is also an input"),
        (("--list", "plain.txt", "--csv", "plain.txt"), "which is also an input"),
        (("@plain.txt", "--csv", "plain.txt"), "which is also an input"),
        (("red", "--csv", "list.csv"), "which is there already and holds no answers; choose another file"),
    ):
        status, _, err = predict(*words)
        assert (status, sentence in err) == (2, True), err
    assert photo.read_bytes() == before
    assert (photos / "list.csv").read_text() == "path\nred/0.png\n"
    for _ in range(2):  # the second time there are answers, which are replaced, and are no pictures of the folder
        status, _, err = predict("red", "--csv", "red/answers.csv")
        assert (status, err) == (0, "2 pictures: red/answers.csv\n")
