import json

import pytest
from PIL import Image

from taxonet.cli.app import main


def test_explain_writes_a_picture_a_photo_and_names_the_broken_one(small_bundle, paint, broken_jpeg, tmp_path, capsys):
    photo = paint(tmp_path / "a" / "x.png", "red")
    other = paint(tmp_path / "b" / "x.png", "blue")
    words = ["explain", small_bundle, photo, broken_jpeg, other, "--out", tmp_path / "out", "--json"]
    assert main([str(word) for word in words]) == 1
    first, broken, second = json.loads(capsys.readouterr().out)
    assert (first["label"], second["label"]) == ("red", "blue")
    assert first["file"] != second["file"]  # two photos of one name
    assert "truncated or damaged" in broken["error"]
    assert first["layer"] == "norm"
    assert first["seen"]["right"] > first["seen"]["left"]
    for row in (first, second):
        with Image.open(row["file"]) as image:
            assert image.format == "PNG"


def test_explain_one_photo_into_one_file(small_bundle, paint, tmp_path, capsys):
    photo = paint(tmp_path / "x.png", "green")
    out = tmp_path / "map.png"
    words = ["explain", small_bundle, photo, "--out", out, "--target", "red", "--method", "integrated_gradients"]
    assert main([str(word) for word in words]) == 0
    assert out.is_file()
    assert "green" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["x.png", "--out", "m.png", "--method", "cam"], 2, "did you mean 'gradcam'"),
        (["x.png", "--out", "m.png", "--target", "rad"], 2, "did you mean 'red'"),
        (["x.png", "--out", "m.png", "--layer", "block9"], 2, "did you mean 'block"),
        (["x.png", "y.png", "--out", "m.png"], 2, "there are 2 photos; give a folder"),
        (["x.png", "--out", "m.jpg"], 2, "must end in .png or be a folder"),
        (["gone.png", "--out", "m.png"], 3, "gone.png cannot be explained: the file does not exist"),
    ],
)
def test_wrong_usage_is_one_sentence(small_bundle, paint, tmp_path, monkeypatch, capsys, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    paint(tmp_path / "x.png", "red")
    assert main(["explain", str(small_bundle), *words]) == status
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "m.png").exists()
