"""The hint of an error: the nearest name, of words and of files, and nothing where none is near."""

import pytest

from taxonet.cli.refusals import as_typed
from taxonet.errors import LOOKED_AT, nearest_file


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("flowers.xml", "flowers.bin", "broken.safetensors", "photo.png"):
        (tmp_path / name).touch()
    (tmp_path / "runs" / "first").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("flower.xml", "; did you mean 'flowers.xml'?"),
        ("foto.png", "; did you mean 'photo.png'?"),
        ("photo.pmg", "; did you mean 'photo.png'?"),
        ("runs/frst/model.safetensors", "; did you mean 'runs/first'?"),
        ("nope.safetensors", ""),  # a shared ending is no likeness
        ("photo.png", ""),  # it is there
        ("a\0b", ""),
    ],
)
def test_the_nearest_file(folder, typed, hint):
    assert nearest_file(typed) == hint


def test_a_large_folder_is_not_searched(folder):
    for number in range(LOOKED_AT + 1):
        (folder / f"{number:06}.jpg").touch()
    assert nearest_file("flower.xml") == ""


@pytest.mark.parametrize(
    ("told", "words", "said"),
    [
        ("out is 3, it must be a path", ["--out", "3"], "--out is 3, it must be a path"),
        ("queue is 5 and max_files is 9", ["--max-files", "9"], "queue is 5 and --max-files is 9"),
        ("out.csv is there already", ["--out", "out.csv"], "out.csv is there already"),
        ("data holds no pictures", ["--data", "data"], "data holds no pictures"),
        ("max_drop holds no pictures", ["--max-drop", "1", "--data", "max_drop"], "max_drop holds no pictures"),
        ("runs/max_drop/a.csv is empty", ["--max-drop", "1"], "runs/max_drop/a.csv is empty"),
    ],
)
def test_an_option_is_named_as_typed_and_a_path_stays_a_path(told, words, said):
    assert as_typed(told, words) == said
