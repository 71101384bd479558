"""`taxonet check`: what goes to stdout, what the exit status says."""

import json
import shutil

import pytest
from PIL import Image

from taxonet.cli.app import main


@pytest.fixture
def photos(fill, tmp_path):
    return fill(tmp_path / "photos", red=12, blue=12)


def test_a_clean_set(photos, capsys):
    assert main(["check", str(photos), "--no-labels"]) == 0
    assert capsys.readouterr().out.startswith("24 pictures, 2 classes\nnothing was found\n")


def test_warnings_fail(photos):
    shutil.copy(photos / "red" / "0.png", photos / "red" / "copy.png")
    assert main(["check", str(photos), "--no-labels"]) == 1


def test_notes_fail_only_when_strict(photos, capsys):
    with Image.open(photos / "red" / "0.png") as picture:
        exif = picture.getexif()
        exif[0x0112] = 6  # orientation: to be turned
        picture.save(photos / "red" / "0.png", exif=exif)
    assert main(["check", str(photos), "--no-labels", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["counts"]) == {"rotated"}
    assert main(["check", str(photos), "--no-labels", "--strict"]) == 1


def test_errors_fail_and_json_stands_alone(photos, capsys):
    (photos / "red" / "empty.png").touch()
    assert main(["check", str(photos), "--no-labels", "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["counts"] == {"broken": 1}
    assert answer["findings"][0]["path"] == "red/empty.png"


def test_the_table_names_the_first_and_counts_the_rest(photos, capsys):
    for number in range(5):
        (photos / "red" / f"empty{number}.png").touch()
    assert main(["check", str(photos), "--no-labels", "--show", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("error")] == [["error", "5", "cannot", "be", "read"]]
    assert "  red/empty0.png: the file is empty" in lines
    assert "  … and 3 more (--json has all, --html shows them)" in lines


def test_page_and_list(photos, tmp_path, capsys):
    (photos / "red" / "empty.png").touch()
    words = ["--html", str(tmp_path / "page.html"), "--exclude-out", str(tmp_path / "list.txt")]
    assert main(["check", str(photos), "--no-labels", *words]) == 1
    assert (tmp_path / "page.html").is_file()
    assert "\nred/empty.png\n" in (tmp_path / "list.txt").read_text()
    assert "it leaves out 1 picture;" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("nothing", 3, "nothing does not exist"),
        ("photos --no-label", 2, "check has no option '--no-label'; did you mean '--no-labels'?"),
        ("photos --no-labels --html missing/page.html", 2, "cannot write 'missing/page.html': the folder"),
        ("nothing --html missing/page.html", 2, "cannot write 'missing/page.html': the folder"),
        ("nothing --exclude-out missing/list.txt", 2, "cannot write 'missing/list.txt': the folder"),
        ("nothing --seed -1", 2, "--seed is -1, it must be from 0 to 4,294,967,295"),  # before the data is read
        ("photos --model densnet121", 2, "'densnet121' is neither a file nor a network; did you mean 'densenet121'?"),
    ],
)
def test_what_cannot_be_done(photos, tmp_path, monkeypatch, capsys, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(["check", *words.split()]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"taxonet: {sentence}" in captured.err
