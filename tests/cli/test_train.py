"""`taxonet train`: the words of the command become values of the recipe, or one sentence, before any work."""

import pytest

from taxonet.cli.app import main
from taxonet.cli.train import _recipe_values


def test_words_become_values_of_the_recipe():
    words = {"weight_decay": "1e-3", "nesterov": "No", "milestones": "0.3,0.6", "optimizer": "adamw", "epochs": "3"}
    expected = {"weight_decay": 1e-3, "nesterov": False, "milestones": (0.3, 0.6), "optimizer": "adamw", "epochs": 3}
    assert _recipe_values(words) == expected


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ("photos", 2, "train needs --out, taxonet train --help shows what it takes"),
        ("photos --out run --epoch 3", 2, "train has no option '--epoch'; did you mean '--epochs'?"),
        (
            "photos --out run --wieght-decay 3",
            2,
            "train has no option '--wieght-decay'; did you mean '--weight-decay'?",
        ),
        ("photos --out run --kep-memory no", 2, "train has no option '--kep-memory'; did you mean '--keep-memory'?"),
        ("photos --out run --weight-decay much", 2, "--weight-decay is 'much', it must be a number"),
        ("photos --out run --nesterov perhaps", 2, "--nesterov is 'perhaps', it must be true or false"),
        ("photos --out run --milestones half", 2, "--milestones is 'half', it must be numbers with commas between"),
        ("photos --out run --epochs some", 2, "--epochs is 'some', it must be a whole number"),
        (
            "photos --out run --model densnet121",
            2,
            "there is no network called 'densnet121'; did you mean 'densenet121'?",
        ),
        ("photoss --out run", 3, "photoss does not exist; did you mean 'photos'?"),
        ("hollow --out run", 3, "hollow holds no pictures in class folders"),
        ("photos --out notes.txt", 2, "notes.txt is a file, --out must be a folder"),
        (
            "photos --out notes.txt/a/run",
            2,
            "cannot make the folder 'notes.txt/a/run': '{here}/notes.txt' is not a folder",
        ),
        ("photos --out photos", 2, "the folder photos is not empty; add --resume to go on with its run"),
    ],
)
def test_what_cannot_be_done(fill, tmp_path, monkeypatch, capsys, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", red=2, blue=2)
    (tmp_path / "hollow").mkdir()
    (tmp_path / "notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", *words.split(), "--no-keep-memory"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"taxonet: {sentence}".replace("{here}", str(tmp_path)))
    assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_demo_never_deletes_what_it_did_not_make(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"taxonet: {tmp_path / 'run'} is not the run of an earlier demo")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "thesis.txt"]
