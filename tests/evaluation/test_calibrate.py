"""`calibrate`: the bundle gets a temperature and a threshold, predict obeys them, and nothing else changes."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

import taxonet
from taxonet.cli.app import main
from taxonet.errors import BundleError, DataError, UsageError
from taxonet.evaluation.calibration import fit_temperature, softened
from taxonet.weights.bundle import read_info, read_tensors


@pytest.fixture
def bundle(small_bundle, tmp_path):
    return shutil.copy(small_bundle, tmp_path / "model.safetensors")


@pytest.fixture
def photos(fill, paint, tmp_path):
    """Pictures of which every sixth has a wrong label: a network that is as sure as ever is sometimes wrong."""
    root = fill(tmp_path / "photos", red=20, green=20, blue=20)
    for i in range(10):
        paint(root / "red" / f"wrong{i}.png", ("green", "blue")[i % 2], seed=50 + i)
    return root


def test_the_temperature_is_stored_and_nothing_else_changes(bundle, photos):
    info, tensors, before = read_info(bundle), read_tensors(bundle), bundle.read_bytes()
    found = taxonet.calibrate(bundle, photos)
    after = read_info(bundle)
    assert after == dataclasses.replace(info, temperature=found.calibration.temperature)
    assert after.temperature != 1.0
    changed = read_tensors(bundle)
    assert list(changed) == list(tensors)
    assert all(torch.equal(changed[name], value) for name, value in tensors.items())
    assert bundle.read_bytes()[-1000:] == before[-1000:]
    assert [path.name for path in bundle.parent.iterdir() if path.is_file()] == ["model.safetensors"]

    scores = taxonet.evaluate(bundle, photos).scores
    assert scores.temperature == fit_temperature(scores.logits, scores.targets).value
    np.testing.assert_allclose(scores.probabilities, softened(scores.logits, after.temperature), atol=1e-6)


def test_calibrating_again_changes_nothing(bundle, photos):
    taxonet.calibrate(bundle, photos, target_coverage=0.8)
    once = bundle.read_bytes()
    again = taxonet.calibrate(bundle, photos)
    assert again.temperature_before == again.calibration.temperature
    assert again.calibration.before["log_loss"] > again.calibration.after["log_loss"]  # before is without any
    assert bundle.read_bytes() == once  # the threshold of the same temperature stays


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_predict_says_none_of_these_where_the_figures_say_so(bundle, photos, batch_size):
    found = taxonet.calibrate(bundle, photos, target_coverage=0.6)
    files = sorted(photos.rglob("*.png"))
    classifier = taxonet.load(bundle)
    answers = classifier.predict(files, batch_size=batch_size)
    assert classifier.info.threshold == found.threshold == found.choice.threshold
    given = [answer for answer in answers if not answer.abstained]
    assert len(given) == found.choice.chosen_on.answered >= 42
    assert sum(answer.label == path.parent.name for answer, path in zip(answers, files, strict=True)) == (
        found.choice.chosen_on.right
    )
    for answer in answers:
        assert answer.abstained == (answer.predictions[0].probability < found.threshold)
        assert answer.label == (None if answer.abstained else answer.predictions[0].label)
    assert not any(answer.abstained for answer in classifier.predict(files, threshold=0))
    assert all(answer.abstained for answer in classifier.predict(files, threshold=1.0))


def test_evaluate_tells_coverage_and_precision_at_the_threshold(bundle, photos):
    found = taxonet.calibrate(bundle, photos, target_coverage=0.6)
    selected = taxonet.evaluate(bundle, photos).as_dict()["selected"]
    assert selected == found.choice.chosen_on.as_dict()


def test_a_precision_that_so_few_pictures_cannot_tell_writes_nothing(bundle, photos, capsys):
    before = bundle.read_bytes()
    assert main(["calibrate", str(bundle), str(photos), "--target-precision", "0.99"]) == 1
    assert "a precision of 0.99 is told by at least 100 answers, there are 70 pictures; nothing was written" in (
        capsys.readouterr().out
    )
    assert bundle.read_bytes() == before


def test_a_target_that_is_out_of_reach_writes_nothing_and_is_status_1(bundle, photos, capsys):
    before = bundle.read_bytes()
    for i in range(20):  # half of the labels wrong, whatever the network says
        (photos / "blue" / f"{i}.png").replace(photos / "green" / f"was-blue{i}.png")
    assert main(["calibrate", str(bundle), str(photos), "--target-precision", "0.98", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["problem"].startswith(
        "no threshold that leaves at least 50 answers reaches a precision of 0.98 on these 70 pictures"
    )
    assert told["bundle"] is None
    assert bundle.read_bytes() == before


def test_a_threshold_of_another_temperature_is_removed_and_that_is_said(bundle, photos, tmp_path):
    taxonet.calibrate(bundle, photos, target_coverage=0.8)
    for i in range(1, 10):  # hardly a wrong one is left: the network may be surer
        (photos / "red" / f"wrong{i}.png").unlink()
    found = taxonet.calibrate(bundle, photos)
    assert read_info(bundle).threshold is None
    assert "belonged to the old temperature" in found.note


def test_another_file_leaves_the_bundle_alone(bundle, photos, tmp_path):
    before = bundle.read_bytes()
    found = taxonet.calibrate(bundle, photos, out=tmp_path / "other.safetensors")
    assert bundle.read_bytes() == before
    assert found.bundle == tmp_path / "other.safetensors"
    assert read_info(found.bundle).temperature == found.calibration.temperature


def test_validation_pictures_are_taken_and_test_pictures_never(bundle, fill, tmp_path):
    root = tmp_path / "split"
    fill(root / "val", red=4, blue=3)
    fill(root / "test", red=2, green=2)
    found = taxonet.calibrate(bundle, root)
    assert (found.split, found.calibration.n) == ("val", 7)


def test_pictures_that_are_all_right_leave_the_temperature_at_1(bundle, fill, tmp_path, capsys):
    photos = fill(tmp_path / "easy", red=3, green=3)
    assert main(["calibrate", str(bundle), str(photos)]) == 0
    assert "temperature  1.0000  (it stays: all 6 answers are right or nearly so" in capsys.readouterr().out
    assert read_info(bundle).temperature == 1.0


def test_what_could_not_be_used_is_told(bundle, photos, paint, broken_jpeg, capsys):
    shutil.copy(broken_jpeg, photos / "red")
    stranger = paint(photos / "reed" / "1.png")
    assert main(["calibrate", str(bundle), str(photos), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert {error["path"] for error in told["errors"]} == {str(stranger), str(photos / "red" / "broken.jpg")}
    assert told["n"] == 70
    assert read_info(bundle).temperature == told["temperature"]


def test_the_words_of_the_command(bundle, photos, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ["calibrate", str(bundle), str(photos), "--target-coverage", "0.8", "--html", str(page)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "pictures     70  (split: all)" in out
    assert "(for a coverage of 0.8)" in out
    assert f"written: {bundle}" in out
    assert "The bundle’s temperature is" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (
            ["--target-precision", "0.9", "--target-coverage", "0.9"],
            2,
            "--target-precision and --target-coverage",
        ),
        (["--target-precision", "95"], 2, "--target-precision is 95.0, it must be above 0 and at most 1"),
        (["--split", "vall"], 2, "photos has no split 'vall'"),
        (["--html", "nowhere/page.html"], 2, "the folder nowhere of --html does not exist"),
        (["--out", "nowhere/x.safetensors"], 2, "cannot write 'nowhere/x.safetensors'"),
    ],
)
def test_what_cannot_be_done(bundle, photos, monkeypatch, capsys, words, status, sentence):
    monkeypatch.chdir(bundle.parent)
    before = bundle.read_bytes()
    assert main(["calibrate", "model.safetensors", "photos", *words]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"taxonet: {sentence}")
    assert captured.err.count("\n") == 1
    assert bundle.read_bytes() == before


def test_a_name_of_the_catalogue_needs_out(photos):
    with pytest.raises(UsageError, match=r"'efficientnet_lite0' is no file that could be rewritten, say .* --out"):
        taxonet.calibrate("efficientnet_lite0", photos)
    with pytest.raises(UsageError, match=r"'densenet121\.tv_in1k' is no file that could be rewritten"):
        taxonet.calibrate("densenet121.tv_in1k", photos)
    with pytest.raises(BundleError, match="there is no such file"):
        taxonet.calibrate("gone.safetensors", photos)


def test_data_without_a_known_class(bundle, paint, tmp_path):
    paint(tmp_path / "strange" / "cat" / "1.png")
    with pytest.raises(DataError, match="no class of the data is known to the model"):
        taxonet.calibrate(bundle, tmp_path / "strange")
