"""Whole runs on real files: what a user gets from `taxonet train`."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.training.conftest import COLOURS, QUICK, write_colours

import taxonet
from taxonet.cli.app import main
from taxonet.errors import DataError, TrainingError, UsageError
from taxonet.evaluation import fit_calibration
from taxonet.networks import create_model
from taxonet.training import job, loop
from taxonet.training.recipe import Recipe, read_recipe
from taxonet.weights.bundle import BundleInfo, read_info, read_tensors
from taxonet.weights.networks import save_network


@pytest.fixture(scope="module")
def run(colours, tmp_path_factory):
    return taxonet.train(colours, out=tmp_path_factory.mktemp("runs") / "first", **QUICK)


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_files(run):
    assert {p.name for p in run.run.iterdir()} >= {
        "recipe.toml",
        "log.jsonl",
        "last",
        "model.safetensors",
        "report.html",
        "train.csv",
        "val.csv",
        "run.json",
    }
    assert read_recipe(run.run / "recipe.toml") == run.recipe
    log = log_of(run.run)
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert log[-1]["train_loss"] < log[0]["train_loss"]
    assert run.validation.metrics.top1 > 0.9


def test_the_bundle_keeps_what_its_training_pictures_look_like(run):
    info, rows = read_info(run.bundle), (run.run / "train.csv").read_text().splitlines()[1:]
    assert info.metrics["inputs"]["n"] == min(128, len(rows))
    brightness = info.metrics["inputs"]["features"]["brightness"]
    assert 0.2 < brightness["mean"] < 0.6
    assert brightness["std"] > 0


def test_evaluate_and_predict_agree_with_the_log_exactly(run):
    again = taxonet.evaluate(run.bundle, run.run / "val.csv")
    last = log_of(run.run)[-1]
    assert again.metrics.top1 == last["val_top1"] == run.validation.metrics.top1
    assert again.metrics.log_loss == last["val_loss"]
    assert read_info(run.bundle).metrics["validation"]["top1"] == last["val_top1"]
    with (run.run / "val.csv").open() as file:
        rows = list(csv.DictReader(file))
    answers = taxonet.load(run.bundle).predict([row["path"] for row in rows])
    right = [answer.label == row["label"] for answer, row in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) == last["val_top1"]


def test_the_split_is_stratified_recorded_and_disjoint(run, colours):
    tables = {}
    for name in ("train", "val"):
        with (run.run / f"{name}.csv").open() as file:
            tables[name] = list(csv.DictReader(file))
    assert not {r["path"] for r in tables["train"]} & {r["path"] for r in tables["val"]}
    assert [sum(r["label"] == c for r in tables["val"]) for c in sorted(COLOURS)] == [4, 4, 4]
    data = json.loads((run.run / "run.json").read_text())
    assert data["counts"] == {"train": 48, "val": 12, "test": 0}
    assert "seed 0" in data["validation"]


def test_the_bundle_says_where_it_came_from(run):
    info = read_info(run.bundle)
    assert info.classes == ("blue", "green", "red")
    assert info.provenance["recipe"]["epochs"] == 3
    assert info.provenance["versions"]["taxonet"] == taxonet.__version__
    assert info.provenance["parent"] is None
    assert "center_crop(16)" in info.preprocessing


def test_the_bundle_has_the_temperature_of_its_validation_pictures(colours, tmp_path):
    shutil.copytree(colours, tmp_path / "data")
    red = sorted((tmp_path / "data" / "red").iterdir())
    for path in red[::2]:  # labels that no network can learn: some validation answers are wrong
        path.replace(tmp_path / "data" / "blue" / f"was-{path.name}")
    run = taxonet.train(tmp_path / "data", out=tmp_path / "run", **{**QUICK, "val_fraction": 0.5})
    info, scores = read_info(run.bundle), taxonet.evaluate(run.bundle, run.run / "val.csv").scores
    fitted = fit_calibration(scores.logits, scores.targets)
    assert info.temperature == fitted.temperature != 1.0
    assert info.threshold is None
    assert run.validation.metrics.log_loss == pytest.approx(fitted.after["log_loss"])  # not the one it was fitted on
    assert info.metrics["validation"]["ece"] == run.validation.metrics.ece == pytest.approx(fitted.after["ece"])
    assert run.validation.metrics.top1 == log_of(run.run)[-1]["val_top1"]
    assert "cross-fitted" in run.report.read_text()


def test_the_report_shows_the_run_and_loads_nothing_from_elsewhere(run):
    page = run.report.read_text()
    for word in ("densenet_bc_22_12", "blue", "95 %", "confusion", "taxonet train", "stratified", "<svg"):
        assert word in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)


def test_the_same_command_gives_the_same_bits(run, colours, tmp_path):
    again = taxonet.train(colours, out=tmp_path / "again", **QUICK)
    first, second = read_tensors(run.bundle), read_tensors(again.bundle)
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = taxonet.train(colours, out=tmp_path / "other", seed=1, **{**QUICK, "epochs": 1})
    assert any(not torch.equal(first[key], value) for key, value in read_tensors(other.bundle).items())


def test_the_recipe_of_a_run_repeats_it(run, colours, tmp_path):
    again = taxonet.train(colours, out=tmp_path / "again", model=QUICK["model"], recipe=run.run / "recipe.toml")
    first, second = read_tensors(run.bundle), read_tensors(again.bundle)
    assert all(torch.equal(first[key], second[key]) for key in first)


def command(data, out, *more):
    words = [
        "train",
        data,
        "--model",
        QUICK["model"],
        "--out",
        out,
        "--image-size",
        16,
        "--batch-size",
        16,
        "--lr",
        0.1,
    ]
    return [sys.executable, "-m", "taxonet", *map(str, words), *map(str, more)]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_anywhere_and_resumed_is_the_run_that_was_never_stopped(colours, tmp_path, number):
    options = ["--epochs", 4, "--ema-decay", 0.9, "--dropout", 0.1]
    whole = subprocess.run(command(colours, tmp_path / "whole", *options), capture_output=True, text=True, check=False)
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(command(colours, tmp_path / "cut", *options), stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("epoch   2/4"):
            process.send_signal(number)
            break
    rest = process.stderr.read()
    killed = number == signal.SIGKILL  # as by a power cut: nothing of the program runs any more
    assert process.wait() == (-number if killed else 130)
    assert killed or "--resume" in rest
    assert "Traceback" not in rest
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    again = subprocess.run(command(colours, tmp_path / "cut", "--resume"), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    first = read_tensors(tmp_path / "whole" / "model.safetensors")
    second = read_tensors(tmp_path / "cut" / "model.safetensors")
    assert all(torch.equal(first[key], second[key]) for key in first)
    figures = ("epoch", "train_loss", "train_top1", "val_loss", "val_top1", "lr")
    lines = [[{k: line[k] for k in figures} for line in log_of(tmp_path / name)] for name in ("whole", "cut")]
    assert lines[0] == lines[1]


def test_resume_after_the_end_changes_nothing(run, colours, tmp_path):
    before = read_tensors(run.bundle)
    result = taxonet.train(colours, out=run.run, resume=True, model=QUICK["model"])
    assert not result.interrupted
    after = read_tensors(run.bundle)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert len(log_of(run.run)) == 3


# --- data as users have it


def test_own_splits_and_labels_by_name(tmp_path):
    """A validation folder that lacks a class, another that has one more: nothing is renumbered."""
    write_colours(tmp_path / "train", 12)
    write_colours(tmp_path / "val", 4, seed=1)
    write_colours(tmp_path / "test", 3, seed=2)
    for file in (tmp_path / "val" / "blue").iterdir():
        file.unlink()
    (tmp_path / "val" / "blue").rmdir()
    (tmp_path / "val" / "anthracite").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "val" / "anthracite" / "0.png")
    result = taxonet.train(tmp_path, out=tmp_path / "run", **QUICK)
    assert result.validation.metrics.n == 8
    assert result.validation.metrics.top1 > 0.9
    scores = {s.label: s for s in result.validation.metrics.per_class}
    assert (scores["blue"].n, scores["blue"].recall) == (0, None)
    warned = "the class &#39;blue&#39; has 12 in train and none in val; add pictures of this class to the split"
    assert warned in result.report.read_text()
    assert [(w.kind, w.label, w.split) for w in result.warnings] == [("class_not_measured", "blue", "val")]
    assert [f.path.endswith("0.png") and "no class 'anthracite'" in f.reason for f in result.findings] == [True]
    assert result.test.metrics.n == 9


def test_broken_pictures_are_left_out_and_listed(tmp_path):
    data = write_colours(tmp_path / "data", 10)
    (data / "red" / "000.png").write_bytes((data / "red" / "001.png").read_bytes()[:300])
    (data / "red" / "zzz.jpg").write_bytes(b"")
    (data / "green" / "notes.txt").write_text("x")
    result = taxonet.train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1, "val_fraction": 0.3})
    named = {f.path.rsplit("/", 1)[-1] for f in result.findings}
    assert named == {"000.png", "zzz.jpg", "notes.txt"}
    listed = json.loads((tmp_path / "run" / "run.json").read_text())["excluded"]
    assert len(listed) >= 1
    assert "zzz.jpg" in result.report.read_text()


def test_broken_validation_pictures_are_known_before_the_first_epoch(tmp_path):
    data = tmp_path / "data"
    write_colours(data / "train", 6)
    write_colours(data / "val", 4, seed=1)
    (data / "val" / "red" / "000.png").write_bytes(b"no picture")
    result = taxonet.train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [entry["path"].endswith("val/red/000.png") for entry in stored["excluded"]] == [True]
    assert stored["counts"]["val"] == result.validation.metrics.n == 11
    for picture in (data / "val").glob("*/*.png"):
        picture.write_bytes(b"")
    with pytest.raises(DataError, match="no validation picture can be read"):
        taxonet.train(data, out=tmp_path / "other", **QUICK)
    assert not (tmp_path / "other").exists()


def test_the_reason_is_that_of_the_class_that_cannot_be_read(tmp_path):
    data = write_colours(tmp_path / "data", 4)
    (data / "blue" / "notes.txt").write_text("x")
    for picture in (data / "red").iterdir():
        picture.write_bytes(picture.read_bytes()[:100])
    with pytest.raises(DataError, match=r"class 'red' can be read, the first: .*truncated"):
        taxonet.train(data, out=tmp_path / "run", **QUICK)


def test_a_file_name_that_is_no_unicode(tmp_path):
    data = write_colours(tmp_path / "data", 4)
    odd = os.fsdecode(os.fsencode(data / "red") + b"/\xff.png")
    (data / "red" / "000.png").rename(odd)
    result = taxonet.train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    assert result.findings == ()
    tables = b"".join((tmp_path / "run" / name).read_bytes() for name in ("train.csv", "val.csv"))
    assert b"\xff.png" in tables


def test_finetuning_keeps_the_options_of_the_bundle(colours, tmp_path):
    network = create_model("mobilenet_v2_035", num_classes=3, padding="same", norm_eps=1e-2)
    text = "exif | rgb | resize(32) | center_crop(32) | normalize(half)"
    info = BundleInfo(variant="mobilenet_v2_035", classes=tuple(sorted(COLOURS)), preprocessing=text)
    save_network(tmp_path / "start.safetensors", info, network)
    result = taxonet.train(
        colours, out=tmp_path / "run", model="mobilenet_v2_035", weights=tmp_path / "start.safetensors", epochs=1
    )
    options = read_info(result.bundle).options
    assert (options["padding"], options["norm_eps"]) == ("same", 1e-2)


def test_auxiliary_heads_train_travel_in_the_bundle_and_are_left_where_nobody_asks(colours, tmp_path):
    options = {**QUICK, "model": "googlenet_torchvision", "image_size": 32, "epochs": 1, "lr": 0.01}
    first = taxonet.train(colours, out=tmp_path / "first", aux_heads=True, **options)
    assert read_info(first.bundle).options["aux_heads"] is True
    assert len(taxonet.load(first.bundle).predict(str(next(colours.glob("red/*.png"))))) == 1
    state = read_tensors(first.bundle)
    torch.manual_seed(first.recipe.seed)
    fresh = create_model("googlenet_torchvision", num_classes=3, aux_heads=True).state_dict()
    heads = [key for key in state if key.startswith("auxiliary.") and key.endswith("weight")]
    assert len(heads) == 2 * 4
    assert not any(torch.equal(state[key], fresh[key]) for key in heads)

    slow = {**options, "lr": 1e-7}
    plain = taxonet.train(colours, out=tmp_path / "plain", weights=first.bundle, **slow)
    assert not any(key.startswith("auxiliary.") for key in read_tensors(plain.bundle))
    again = taxonet.train(colours, out=tmp_path / "again", weights=first.bundle, aux_heads=True, **slow)
    kept = read_tensors(again.bundle)
    assert all(torch.allclose(kept[key], state[key], atol=1e-4) for key in heads)
    from_plain = taxonet.train(colours, out=tmp_path / "heads", weights=plain.bundle, aux_heads=True, **slow)
    assert set(read_tensors(from_plain.bundle)) == set(state)


def test_a_network_without_batch_norm_trains(colours, tmp_path):
    options = {**QUICK, "model": "googlenet", "image_size": 32, "epochs": 1}
    result = taxonet.train(colours, out=tmp_path / "run", **{**options, "lr": 1e-3})
    assert result.validation.metrics.n == 12


def test_grey_pictures_get_a_network_of_one_channel(tmp_path):
    for label, level in (("dark", 60), ("light", 190)):
        (tmp_path / "data" / label).mkdir(parents=True)
        rng = np.random.default_rng(level)
        for number in range(10):
            pixels = np.clip(rng.normal(level, 30, (16, 16)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / label / f"{number}.png")
    result = taxonet.train(tmp_path / "data", out=tmp_path / "run", **QUICK)
    info = read_info(result.bundle)
    assert info.in_channels == 1
    assert "grey" in info.preprocessing
    colour = Image.open(tmp_path / "data" / "dark" / "0.png").convert("RGB")
    assert taxonet.load(result.bundle).predict(colour)[0].label == "dark"
    options = {**QUICK, "lr": 1e-6, "epochs": 1}
    tuned = taxonet.train(tmp_path / "data", out=tmp_path / "tuned", weights=result.bundle, **options)
    assert read_info(tuned.bundle).in_channels == 1
    assert tuned.validation.metrics.top1 == result.validation.metrics.top1


def test_finetuning_starts_from_weights_and_leaves_a_fitting_classifier(run, colours, tmp_path):
    """From a bundle with the same classes nothing is thrown away: the first validation is as good as the last."""
    result = taxonet.train(colours, out=tmp_path / "tuned", weights=run.bundle, **{**QUICK, "lr": 1e-6, "epochs": 1})
    assert result.recipe.name == "finetune"
    assert log_of(result.run)[0]["val_top1"] == run.validation.metrics.top1
    assert read_info(result.bundle).provenance["parent"]["weights"] == "model.safetensors"


def test_weights_of_as_many_other_classes_do_not_lend_their_classifier(run, colours, tmp_path):
    """blue, green and red become c, a and b: the old classifier would name each wrongly."""
    for label, name in zip(sorted(COLOURS), "cab", strict=True):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(colours / label)
    options = {**QUICK, "lr": 1e-6, "epochs": 1}
    result = taxonet.train(tmp_path / "data", out=tmp_path / "run", weights=run.bundle, **options)
    assert result.validation.metrics.top1 > 0.9


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        ({"model": "densnet121"}, UsageError, "did you mean 'densenet121'"),
        ({"epoch": 3}, UsageError, "did you mean 'epochs'"),
        ({"weights": "nowhere.pth"}, UsageError, "does not exist"),
        ({"recipe": "scrach"}, UsageError, "did you mean 'scratch'"),
        ({"aux_heads": True}, UsageError, "densenet_bc_22_12 has no auxiliary heads"),
        ({"model": "vgg11", "norm_statistics": "frozen"}, UsageError, "vgg11 has no batch norm"),
        ({"frozen_stages": 1, "weights": "none"}, UsageError, "starts from no weights that could be kept"),
        ({"augmentation": "flip | random_resize_crop(16)"}, UsageError, "did you mean 'random_resized_crop'"),
        ({"data": "nowhere"}, DataError, "does not exist"),
        ({"augmentation": "random_resized_crop(24)"}, UsageError, "24×24, image_size asks for 16×16"),
        ({"model": "densenet121"}, UsageError, "pictures of 16×16 pixels are too small for densenet121"),
        ({"resume": True}, UsageError, "no run to resume"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_leave_no_run(colours, tmp_path, arguments, kind, sentence):
    words = {"data": colours, "out": tmp_path / "run", **QUICK, **arguments}
    with pytest.raises(kind, match=sentence) as caught:
        taxonet.train(words.pop("data"), **words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_data_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    one = tmp_path / "one"
    write_colours(one, 3)
    for label in ("red", "green"):
        for file in (one / label).iterdir():
            file.unlink()
        (one / label).rmdir()
    for data, sentence in ((tmp_path / "empty", "no pictures"), (one, "one class")):
        with pytest.raises(DataError, match=sentence):
            taxonet.train(data, out=tmp_path / "run", **QUICK)


@pytest.mark.parametrize(("text", "told"), [("[]", "lacks 'source'"), ("{}", "lacks 'source'"), ("3", "holds no run")])
def test_a_run_json_that_lacks_what_a_run_needs_is_one_sentence(begun, text, told):
    data, run = begun
    (run / "run.json").write_text(text)
    with pytest.raises(UsageError, match=told):
        taxonet.train(data, out=run, resume=True)


def test_a_folder_with_a_run_is_not_overwritten(run, colours):
    with pytest.raises(UsageError, match="--resume"):
        taxonet.train(colours, out=run.run, **QUICK)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"epochs": 9}, "has epochs 3, not 9"),
        ({"recipe": "paper"}, "has name scratch"),
        ({"epoch": 3}, "'epochs'"),
        ({"recipe": Recipe(lr=0.3)}, "has "),
        ({"weights": "none.pth"}, "started from the weights none, not none.pth"),
    ],
)
def test_resume_with_another_recipe_or_other_weights_is_refused(run, colours, asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        taxonet.train(colours, out=run.run, resume=True, **asked)


def test_resume_with_a_recipe_file_is_refused_where_the_file_has_changed(run, colours, tmp_path):
    same = tmp_path / "same.toml"
    same.write_text((run.run / "recipe.toml").read_text())
    assert taxonet.train(colours, out=run.run, resume=True, recipe=same).recipe == run.recipe
    other = tmp_path / "other.toml"
    other.write_text(same.read_text().replace("epochs = 3", "epochs = 4"))
    with pytest.raises(UsageError, match="has epochs 3, not 4"):
        taxonet.train(colours, out=run.run, resume=True, recipe=other)


def test_a_recipe_file_of_any_name_splits_by_its_seed_and_resumes(colours, tmp_path):
    values = {"image_size": 16, "augmentation": "resize(16) | center_crop(16)", "batch_size": 16, "epochs": 1}
    values |= {"seed": 3, "val_fraction": 0.4}
    file = tmp_path / "mine"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items()))
    first = taxonet.train(colours, out=tmp_path / "run", model=QUICK["model"], recipe=file)
    named = taxonet.train(colours, out=tmp_path / "named", model=QUICK["model"], recipe=Recipe(**values))
    tables = [sorted((run.run / "val.csv").read_text().splitlines()) for run in (first, named)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 1 + 24
    assert taxonet.train(colours, out=first.run, resume=True, recipe=file).validation.metrics.n == 24


@pytest.mark.parametrize("name", ["two\nlines", "bell\a"])
def test_a_class_name_that_no_bundle_holds_is_refused_at_once(tmp_path, name):
    data = write_colours(tmp_path / "data", 3)
    (data / "red").rename(data / name)
    with pytest.raises(DataError, match="rename it"):
        taxonet.train(data, out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_resume_on_other_data_is_refused(run, tmp_path):
    other = write_colours(tmp_path / "other", 5, seed=9)
    with pytest.raises(DataError, match=r"are not those that the run in .* began with: 45 gone or unreadable \("):
        taxonet.train(other, out=run.run, resume=True, model=QUICK["model"])


@pytest.fixture
def begun(colours, tmp_path):
    """Data of its own and a run on it that has no checkpoint yet."""
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    result = taxonet.train(data, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    shutil.rmtree(result.run / "last")
    return data, result.run


def resized(path):
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: shutil.copy(data / "red" / "000.png", data / "red" / "more.png"), "1 new (red/more.png)"),
        (lambda data: (data / "red" / "000.png").unlink(), "1 gone or unreadable (red/000.png)"),
        (lambda data: (data / "red" / "000.png").write_text("no picture"), "1 gone or unreadable (red/000.png)"),
        (
            lambda data: (data / "red" / "000.png").rename(data / "blue" / "was-red.png"),
            "1 new (blue/was-red.png); 1 gone or unreadable (red/000.png)",
        ),
        (lambda data: resized(data / "red" / "000.png"), "1 of another size (red/000.png)"),
    ],
)
def test_resume_on_pictures_that_have_changed_names_the_change(begun, change, told):
    data, run = begun
    change(data)
    with pytest.raises(DataError) as caught:
        taxonet.train(data, out=run, resume=True)
    assert f"began with: {told}; put them back, or begin another run" in str(caught.value)


@pytest.fixture
def begun_of_table(colours, tmp_path):
    """The same from a table with a test split."""
    names = sorted(f"{path.parent.name}/{path.name}" for path in colours.glob("*/*.png"))
    rows = [(name, name.split("/")[0], ("train", "train", "val", "test")[i % 4]) for i, name in enumerate(names)]
    shutil.copytree(colours, tmp_path / "data")
    table = tmp_path / "data" / "table.csv"
    write_rows(table, rows)
    result = taxonet.train(table, out=tmp_path / "run", **{**QUICK, "epochs": 1})
    return table, rows, result.run


def write_rows(table, rows):
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [(rows[0][0], "green", rows[0][2]), *rows[1:]], "1 of another class (blue/000.png)"),
        (lambda rows: [(*rows[0][:2], "val"), *rows[1:]], "1 in another split (blue/000.png)"),
        (lambda rows: rows[::-1], "the same in another order"),
        (lambda rows: [row for row in rows if row[0] != rows[3][0]], "1 gone or unreadable (blue/003.png)"),  # a test's
    ],
)
def test_resume_on_a_table_that_has_changed_names_the_change(begun_of_table, change, told):
    table, rows, run = begun_of_table
    write_rows(table, change(rows))
    with pytest.raises(DataError) as caught:
        taxonet.train(table, out=run, resume=True)
    assert f"began with: {told}; put them back" in str(caught.value)


def test_a_run_goes_on_where_its_data_has_moved(begun, tmp_path):
    data, run = begun
    data.rename(tmp_path / "elsewhere")
    assert taxonet.train(tmp_path / "elsewhere", out=run, resume=True).bundle.exists()
    (tmp_path / "elsewhere" / "red" / "000.png").unlink()
    with pytest.raises(DataError, match=r"began with: 1 gone or unreadable \(red/000.png\);"):
        taxonet.train(tmp_path / "elsewhere", out=run, resume=True)


def test_ctrl_c_while_pictures_are_opened_says_how_to_go_on(colours, tmp_path, monkeypatch, capsys):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "open_once", stopped)
        assert main(["train", str(colours), "--out", str(tmp_path / "early"), "--model", QUICK["model"]]) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "early").exists()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["taxonet.training.train"], "plan", stopped)
        words = ["train", str(colours), "--out", str(tmp_path / "early"), "--budget", "1m"]
        assert main(words) == 130
    assert "stopped; nothing was written" in capsys.readouterr().err
    assert main([*words, "--resume"]) == 2
    assert "does not exist, there is no run to resume; begin one without --resume" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(job, "Training", stopped)
        assert main(["train", str(colours), "--out", str(tmp_path / "late"), "--model", QUICK["model"]]) == 130
    assert f"stopped; the same command with --resume goes on ({tmp_path / 'late'})" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is full, as Linux has one")
def test_a_full_disk_is_one_sentence(colours, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG", "/dev/full")
    with pytest.raises(DataError, match="cannot write '/dev/full': No space left on device; --resume goes on"):
        taxonet.train(colours, out=tmp_path / "run", **{**QUICK, "epochs": 1})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write into every folder")
def test_a_folder_that_may_not_be_written_into_is_refused_at_once(colours, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="is not writable"):
        taxonet.train(colours, out=closed / "run", **QUICK)


def test_a_diverging_run_says_what_to_do(colours, tmp_path):
    with pytest.raises(TrainingError, match="lower lr"):
        taxonet.train(colours, out=tmp_path / "run", **{**QUICK, "lr": 1000.0, "epochs": 3, "optimizer": "sgd"})


def test_clipped_to_almost_nothing_only_the_classifiers_matrix_moves(colours, tmp_path):
    """Gradients are clipped in the loop, before the optimiser adds decay and momentum; the matrix is left out."""
    values = {"recipe": "scratch", "weight_decay": 0.0, "ema_decay": 0.0, "dropout": 0.0, "epochs": 1}
    run = taxonet.train(colours, out=tmp_path / "run", **{**QUICK, **values}, agc=1e-7)
    torch.manual_seed(run.recipe.seed)
    fresh = create_model("densenet_bc_22_12", num_classes=3)
    trained = read_tensors(run.bundle)
    for name, parameter in fresh.named_parameters():
        moved = (trained[name] - parameter).norm() / parameter.norm().clamp(min=1e-3)
        assert moved > 1e-3 if name == "classifier.weight" else moved < 1e-6, name
    assert read_recipe(run.run / "recipe.toml").agc == 1e-7


# --- the folder of a run, after a kill at its start


def test_a_start_that_was_cut_off_begins_again(run, colours, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".run.json.0123456789ab.tmp").write_text("{")
    (folder / "run.json").write_bytes((run.run / "run.json").read_bytes())
    (folder / ".recipe.toml.0123456789ab.tmp").write_text("")
    with pytest.raises(UsageError, match=r"no run to resume.*the start there was cut off, begin it again without"):
        taxonet.train(colours, out=folder, resume=True, **QUICK)
    again = taxonet.train(colours, out=folder, **QUICK)
    first, second = read_tensors(run.bundle), read_tensors(again.bundle)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["train.csv", "run.json", "notes.tmp"])
def test_files_of_the_user_are_never_taken_for_a_start_that_was_cut_off(colours, tmp_path, name):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_text('{"model": "mine"}')
    with pytest.raises(UsageError, match="is not empty"):
        taxonet.train(colours, out=folder, **QUICK)
    assert (folder / name).read_text() == '{"model": "mine"}'
    assert len(list(folder.iterdir())) == 1


def test_a_run_killed_before_its_tables_were_there_gets_them(run, colours, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "recipe.toml", "train.csv"):
        (folder / name).write_bytes((run.run / name).read_bytes())
    again = taxonet.train(colours, out=folder, resume=True)
    assert (folder / "val.csv").read_bytes() == (run.run / "val.csv").read_bytes()
    first, second = read_tensors(run.bundle), read_tensors(again.bundle)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(run, colours, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run.run, folder)
    newest = max((folder / "last").iterdir())
    newest.write_bytes(newest.read_bytes()[:5000])
    (folder / "model.safetensors").unlink()
    again = taxonet.train(colours, out=folder, resume=True, progress=True, keep_checkpoints=3)
    said = capsys.readouterr().err
    assert f"{newest} is damaged (it is no checkpoint, or cut off); the checkpoint before it is used" in said
    assert "going on in epoch 3 of 3, after 0 of its 3 steps" in said
    first, second = read_tensors(run.bundle), read_tensors(again.bundle)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"keep_checkpoints": 0}, "keep_checkpoints is 0, it must be at least 1"),
        ({"checkpoint_seconds": -1}, "checkpoint_seconds is -1, it must be at least 0"),
    ],
)
def test_wrong_options_of_checkpoints(colours, tmp_path, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        taxonet.train(colours, out=tmp_path / "run", **QUICK, **options)
