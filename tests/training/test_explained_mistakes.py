"""The report of a run shows what spoke for its worst mistakes, where captum is there and time allows."""

import sys

import pytest

from taxonet.data import Sample
from taxonet.evaluation import Outcome
from taxonet.evaluation.overlay import explain_mistakes
from taxonet.training import train

QUICK = {"model": "densenet_bc_22_12", "image_size": 16, "batch_size": 16, "epochs": 1, "lr": 1e-6}  # it learns nothing


@pytest.fixture(scope="module")
def explained(colours, tmp_path_factory):
    return train(colours, out=tmp_path_factory.mktemp("explained") / "run", **QUICK)


def heat_maps(result):
    return result.report.read_text("utf-8").count('alt="what spoke for ')


def test_every_shown_mistake_is_explained(explained):
    wrong = sum(outcome.answer != outcome.sample.label for outcome in explained.validation.outcomes)
    assert wrong > 0
    assert heat_maps(explained) == wrong
    assert "what the network saw after preprocessing (exif | rgb" in explained.report.read_text("utf-8")


def test_it_can_be_turned_off_and_changes_no_weight(explained, colours, tmp_path):
    plain = train(colours, out=tmp_path / "run", explain=False, **QUICK)
    assert heat_maps(plain) == 0
    from safetensors.numpy import load_file

    ours, theirs = load_file(explained.bundle), load_file(plain.bundle)
    assert all((ours[key] == theirs[key]).all() for key in ours)


def test_without_captum_the_run_ends_as_well_and_says_so(colours, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    result = train(colours, out=tmp_path / "run", progress=True, **QUICK)
    assert heat_maps(result) == 0
    assert result.report.is_file()
    assert "pip install captum" in capsys.readouterr().err


def test_a_picture_that_has_gone_and_a_time_that_is_over(colour_classifier, paint, tmp_path):
    there = Outcome(Sample(paint(tmp_path / "a.png", "red"), "blue"), "red", 0.9)
    gone = Outcome(Sample(tmp_path / "gone.png", "blue"), "red", 0.9)
    found = explain_mistakes(colour_classifier, [gone, there], side=40, seconds=60)
    assert list(found) == [there.sample.path]
    assert found[there.sample.path].startswith("data:image/jpeg;base64,")
    assert explain_mistakes(colour_classifier, [there], side=40, seconds=-1) == {}
