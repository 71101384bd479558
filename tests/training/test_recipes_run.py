"""Whole runs with what a recipe can ask for: a stopped run goes on to the same bits, and what is said is true."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
from tests.training.conftest import COLOURS, QUICK, write_colours

import taxonet
from taxonet.console import Silent
from taxonet.errors import NoMemoryError, TrainingError, UsageError
from taxonet.networks import create_model
from taxonet.networks.layers import Network
from taxonet.training import loop
from taxonet.training.precision import measure_precision
from taxonet.training.recipe import read_recipe
from taxonet.training.stopping import best_epoch, is_over
from taxonet.weights.bundle import read_info, read_tensors

FEW = {**QUICK, "recipe": "scratch"}


class Notes:
    """A listener that writes down what it hears."""

    def __init__(self):
        self.lines, nobody = [], Silent()
        self.start, self.advance, self.finish = nobody.start, nobody.advance, nobody.finish

    def say(self, text):
        self.lines.append(text)


@pytest.fixture
def heard(monkeypatch):
    """What a run says: `heard(data, out=…, **recipe)` gives the result and the lines."""

    def run(*arguments, **options):
        notes = Notes()
        monkeypatch.setattr(sys.modules["taxonet.training.train"], "Terminal", lambda: notes)
        return taxonet.train(*arguments, progress=True, **options), notes.lines

    return run


def stop_before_step(monkeypatch, number):
    """SIGINT comes while the run takes its step of this number, counted from 1."""
    original, count = loop.step, [0]

    def step(*arguments):
        count[0] += 1
        if count[0] == number:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(loop, "step", step)


def same_weights(a, b):
    first, second = read_tensors(a), read_tensors(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def log_of(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]


RANDOM = {
    "mixed": {"mixup": 0.4, "cutmix": 1.0, "accumulate": 2, "batch_size": 8, "clip_norm": 1.0},
    "sampled": {
        "balance": "sampling",
        "augmentation": "rand_augment(2, 9) | trivial_augment | random_resized_crop(16) | flip | erase(0.5)",
    },
    "taught": {"mixup": 0.4, "distill_weight": 0.7, "teacher": "small", "dropout": 0.2, "balance": "loss"},
    "patient": {"patience": 2, "precision": "bfloat16", "ema_decay": 0.0, "channels_last": False},
    "deep": {"model": "efficientnet_b0", "stochastic_depth": 0.5, "image_size": 32, "lr": 0.01},
}


@pytest.mark.parametrize("name", RANDOM)
def test_a_run_that_was_stopped_in_an_epoch_ends_in_the_same_bits(name, colours, small_bundle, tmp_path, monkeypatch):
    options = {**FEW, "epochs": 2, **RANDOM[name]}
    if options.get("teacher"):
        options["teacher"] = str(small_bundle)
    whole = taxonet.train(colours, out=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        stop_before_step(patch, 5)  # the second of three steps of the second epoch
        cut = taxonet.train(colours, out=tmp_path / "cut", **options)
    assert cut.interrupted
    assert not cut.bundle.exists()
    resumed = taxonet.train(colours, out=tmp_path / "cut", resume=True)
    assert same_weights(whole.bundle, resumed.bundle)
    assert log_of(whole.run) == log_of(resumed.run)


def test_what_a_recipe_asks_for_changes_the_weights(colours, tmp_path):
    """None of the values is a dead letter."""
    options = {**FEW, "epochs": 1}
    plain = taxonet.train(colours, out=tmp_path / "plain", **options)
    for name, value in {
        "mixup": 0.4,
        "cutmix": 1.0,
        "clip_norm": 1e-3,
        "accumulate": 3,
        "balance": "sampling",
        "precision": "bfloat16",
    }.items():
        other = taxonet.train(colours, out=tmp_path / name, **options, **{name: value})
        assert not same_weights(plain.bundle, other.bundle), name
        assert getattr(read_recipe(other.run / "recipe.toml"), name) == value


# --- the estimate


def test_the_estimate_is_told_and_leaves_no_trace(colours, tmp_path, heard):
    quiet = taxonet.train(colours, out=tmp_path / "quiet", **{**FEW, "dropout": 0.2})
    told, lines = heard(colours, out=tmp_path / "told", **{**FEW, "dropout": 0.2})
    assert same_weights(quiet.bundle, told.bundle)
    found = [line for line in lines if line.startswith("estimate")]
    assert len(found) == 1
    assert "an epoch" in found[0]
    assert "memory" in found[0]
    assert lines.index(found[0]) < next(i for i, line in enumerate(lines) if line.startswith("epoch   1/3"))


def test_the_recipe_is_told_with_the_effective_batch(colours, tmp_path, heard):
    _, lines = heard(colours, out=tmp_path / "run", **{**FEW, "epochs": 1, "batch_size": 8, "accumulate": 3})
    assert "  a step takes 24 pictures: 8 at once, 3 times" in lines


# --- memory


def refuse_more_than(monkeypatch, most, error):
    """The allocator of this machine refuses a forward pass of more than `most` pictures, half way through it."""
    original, sizes = Network.forward_head, []

    def forward_head(self, features):
        if self.training:
            sizes.append(len(features))
            if len(features) > most:
                raise error
        return original(self, features)

    monkeypatch.setattr(Network, "forward_head", forward_head)
    return sizes


ERRORS = {
    "accelerator": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "processor": RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_batch_that_does_not_fit_is_halved_and_accumulated(kind, colours, tmp_path, monkeypatch, heard):
    """The steps are those of half the batch and twice the accumulation from the start, the failed pass undone."""
    expected = taxonet.train(colours, out=tmp_path / "half", **{**FEW, "batch_size": 8, "accumulate": 2})
    sizes = refuse_more_than(monkeypatch, 8, ERRORS[kind])
    result, lines = heard(colours, out=tmp_path / "run", **FEW)
    assert same_weights(result.bundle, expected.bundle)
    said = [line for line in lines if "out of memory" in line]
    assert len(said) == 1
    assert "halved to 8 pictures and accumulation doubled to 2, a step still takes 16" in said[0]
    assert [size > 8 for size in sizes].count(True) == 1


def test_a_division_of_the_batch_survives_a_resume(colours, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        refuse_more_than(patch, 8, ERRORS["processor"])
        whole = taxonet.train(colours, out=tmp_path / "whole", **FEW)
        stop_before_step(patch, 4)
        taxonet.train(colours, out=tmp_path / "run", **FEW)
    resumed = taxonet.train(colours, out=tmp_path / "run", resume=True)  # memory would do for whole batches now
    assert same_weights(whole.bundle, resumed.bundle)


def test_memory_that_holds_not_even_two_pictures_ends_the_run_with_a_sentence(colours, tmp_path, monkeypatch):
    refuse_more_than(monkeypatch, 1, ERRORS["processor"])
    with pytest.raises(TrainingError, match=r"memory does not hold \d pictures of 16×16 at once; choose a smaller"):
        taxonet.train(colours, out=tmp_path / "run", **FEW)


def refuse_evaluation_of_more_than(monkeypatch, most):
    """Networks in evaluation mode find no memory for more than `most` pictures; returns what they were given."""
    sizes, original = [], Network.forward_features

    def forward_features(self, images):
        if not self.training and not images.is_meta:
            sizes.append(len(images))
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, images)

    monkeypatch.setattr(Network, "forward_features", forward_features)
    return sizes


@pytest.mark.parametrize("recipe", ["scratch", "features"])
def test_validation_and_features_go_in_halves_where_memory_is_short(recipe, colours, tmp_path, monkeypatch):
    start = taxonet.train(colours, out=tmp_path / "start", **FEW)
    frozen = {"model": FEW["model"], "image_size": 16, "weights": str(start.bundle)}
    options = {**(frozen if recipe == "features" else FEW), "recipe": recipe, "explain": False}
    expected = taxonet.train(colours, out=tmp_path / "whole", **options)
    sizes = refuse_evaluation_of_more_than(monkeypatch, 5)
    result = taxonet.train(colours, out=tmp_path / "halves", **options)
    assert any(size > 5 for size in sizes)
    assert result.validation.metrics.log_loss == pytest.approx(expected.validation.metrics.log_loss, rel=1e-4)


def test_memory_that_holds_not_one_picture_ends_in_a_sentence(colours, tmp_path, monkeypatch):
    refuse_evaluation_of_more_than(monkeypatch, 0)
    with pytest.raises(NoMemoryError, match="memory does not hold one picture of 16×16"):
        taxonet.train(colours, out=tmp_path / "run", **FEW)


def test_a_precision_that_memory_cannot_measure_is_float32(monkeypatch):
    network = create_model("densenet_bc_22_12", num_classes=3)
    refuse_more_than(monkeypatch, 8, ERRORS["accelerator"])
    word, reason = measure_precision(network, 3, (16, 16), 16)
    assert (word, reason) == ("float32", "not measured: memory does not hold a step on 16 pictures")


def test_another_error_is_not_taken_for_memory(colours, tmp_path, monkeypatch):
    refuse_more_than(monkeypatch, 8, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        taxonet.train(colours, out=tmp_path / "run", **FEW)


# --- early stopping


def test_when_it_is_over_follows_from_the_log():
    def log(*losses):
        return [{"val_loss": loss} for loss in losses]

    assert best_epoch(log(3, 1, 2, 1)) == 2
    assert best_epoch([]) == 0
    assert not is_over([], 1)
    assert not is_over(log(3, 2, 1), 1)
    assert is_over(log(3, 1, 2), 1)
    assert not is_over(log(3, 1, 2), 2)
    assert is_over(log(3, 1, 2, 1), 2)  # as low is not lower
    assert not is_over(log(1, 2, 3, 4), 0)


def test_patience_stops_ships_the_best_epoch_and_the_report_says_so(colours, tmp_path, heard):
    options = {**FEW, "epochs": 12, "lr": 0.5, "ema_decay": 0.0, "schedule": "constant", "patience": 2}
    options |= {"warmup_epochs": 0.0, "norm_momentum": 0.1}
    result, lines = heard(colours, out=tmp_path / "run", **options)
    log = log_of(result.run)
    best = best_epoch(log)
    assert len(log) == best + 2 < 12
    assert any("stopped early: 2 epochs without a lower validation loss" in line for line in lines)
    assert any(line.startswith(f"the weights of epoch {best}, of {len(log)}") for line in lines)
    short = taxonet.train(colours, out=tmp_path / "short", **{**options, "epochs": best, "patience": 0})
    assert same_weights(short.bundle, result.bundle)  # a run that ends there, under a schedule that does not know it
    assert read_info(result.bundle).metrics["epoch"] == best
    page = " ".join(result.report.read_text().split())
    assert f"weights of epoch {best}" in page
    assert "flattered" in page


# --- the classifier alone


@pytest.fixture(scope="module")
def backbone(colours, tmp_path_factory):
    return taxonet.train(colours, out=tmp_path_factory.mktemp("backbone") / "run", **{**FEW, "epochs": 1}).bundle


def test_the_recipe_features_fits_the_classifier_and_nothing_else(backbone, colours, tmp_path, heard):
    options = {"model": QUICK["model"], "weights": backbone, "recipe": "features"}
    result, lines = heard(colours, out=tmp_path / "run", **options)
    before, after = read_tensors(backbone), read_tensors(result.bundle)
    changed = {key for key in before if not torch.equal(before[key], after[key]) and "num_batches" not in key}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert result.validation.metrics.top1 > 0.9
    assert any("by 5-fold cross-validation on the training pictures" in line for line in lines)
    assert not any(line.split()[0] in ("lr", "optimizer", "epochs") for line in lines if line.startswith("  "))
    again = taxonet.train(colours, out=tmp_path / "again", **options)
    assert same_weights(result.bundle, again.bundle)
    evaluated = taxonet.evaluate(result.bundle, result.run / "val.csv")
    assert evaluated.metrics.top1 == log_of(result.run)[0]["val_top1"]
    assert result.report.exists()


def test_features_are_extracted_once(backbone, colours, tmp_path, monkeypatch):
    options = {"model": QUICK["model"], "weights": backbone, "recipe": "features"}
    result = taxonet.train(colours, out=tmp_path / "run", **options)
    weights = read_tensors(result.bundle)
    monkeypatch.setattr("taxonet.training.features.extract", None)  # a resumed run finds them
    resumed = taxonet.train(colours, out=tmp_path / "run", resume=True)
    assert all(torch.equal(value, weights[key]) for key, value in read_tensors(resumed.bundle).items())


def test_features_of_two_classes_and_of_one_picture(backbone, tmp_path):
    data = write_colours(tmp_path / "data", 12)
    for picture in (data / "red").iterdir():
        picture.unlink()
    (data / "red").rmdir()
    for number in range(2, 12):  # one for training, one for validation
        (data / "blue" / f"{number:03d}.png").unlink()
    options = {"model": QUICK["model"], "weights": backbone, "recipe": "features"}
    result = taxonet.train(data, out=tmp_path / "run", **options)
    assert result.validation.metrics.n == 3
    assert np.isfinite(result.validation.metrics.log_loss)


def test_features_needs_weights(colours, tmp_path):
    with pytest.raises(UsageError, match="features needs weights"):
        taxonet.train(colours, out=tmp_path / "run", model=QUICK["model"], recipe="features")


# --- skewed classes


def test_balance_finds_the_small_class_that_an_unbalanced_run_gives_up(tmp_path):
    data = write_colours(tmp_path / "train" / "train", 40)
    for picture in sorted((data / "green").iterdir())[2:]:
        picture.unlink()
    write_colours(tmp_path / "train" / "val", 10, seed=1)
    recalls = {}
    for word in ("none", "sampling", "loss"):
        options = {**FEW, "epochs": 2, "lr": 0.05, "ema_decay": 0.0, "balance": word, "balance_weights": "inverse"}
        result = taxonet.train(tmp_path / "train", out=tmp_path / word, **options)
        recalls[word] = {score.label: score.recall for score in result.validation.metrics.per_class}["green"]
    assert recalls["sampling"] > recalls["none"]
    assert recalls["loss"] > recalls["none"]


# --- values that are refused


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"teacher": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"stochastic_depth": 0.1}, "densenet_bc_22_12 has no stochastic depth"),
        ({"balance": "samplin"}, "did you mean 'sampling'"),
        ({"precision": "float16"}, "did you mean 'float32'|must be one of float32, bfloat16, auto"),
        ({"mixup": -1}, "mixup is -1"),
        ({"pacience": 3}, "did you mean 'patience'"),
        ({"log": "tensorbord"}, "there is no logger 'tensorbord', it must be tensorboard or mlflow; did you mean"),
        ({"frozen": True, "head_first": True}, "exclude each other"),
        ({"recipe": "features", "frozen": False}, "on a frozen network, frozen must be true"),
    ],
)
def test_wrong_values_are_one_sentence_and_leave_no_run(colours, tmp_path, values, sentence):
    with pytest.raises(taxonet.errors.TaxonetError, match=sentence) as caught:
        taxonet.train(colours, out=tmp_path / "run", **{**FEW, **values})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_has_changed_since_ends_the_resume(colours, small_bundle, tmp_path, monkeypatch, backbone):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(small_bundle.read_bytes())
    with monkeypatch.context() as patch:
        stop_before_step(patch, 2)
        taxonet.train(colours, out=tmp_path / "run", **FEW, teacher=str(teacher))
    teacher.write_bytes(backbone.read_bytes())
    with pytest.raises(
        taxonet.errors.DataError,
        match=r"the teacher .*teacher.safetensors is not the one that the run in .* began with",
    ):
        taxonet.train(colours, out=tmp_path / "run", resume=True)


def test_auto_is_recorded_as_what_it_became_and_resumes(colours, tmp_path, heard):
    options = {**FEW, "epochs": 1, "precision": "auto", "balance": "auto"}
    result, lines = heard(colours, out=tmp_path / "run", **options)
    assert result.recipe.precision in ("float32", "bfloat16")
    assert result.recipe.balance == "none"
    assert any("measured here: a step on 16 pictures takes" in line for line in lines)
    resumed = taxonet.train(colours, out=tmp_path / "run", resume=True, precision="auto", balance="auto")
    assert resumed.recipe == result.recipe
    assert sorted(COLOURS) == list(read_info(result.bundle).classes)


def test_frozen_stages_keep_weights_and_statistics_and_the_rest_learns(colours, small_bundle, tmp_path):
    options = {**QUICK, "recipe": "finetune", "weights": small_bundle, "norm_statistics": "train", "frozen_stages": 2}
    run = taxonet.train(colours, out=tmp_path / "run", **options)
    before, after = read_tensors(small_bundle), read_tensors(run.bundle)
    names = [name for name, _ in taxonet.create_model(read_info(small_bundle).variant).body.named_children()]
    for key, value in before.items():
        frozen = any(key.startswith(f"body.{name}.") for name in names[:2])
        if frozen or value.is_floating_point():
            assert torch.equal(value, after[key]) is frozen, key
    with pytest.raises(UsageError, match=f"has {len(names)} stages, frozen_stages is {len(names) + 1}"):
        taxonet.train(colours, out=tmp_path / "more", **{**options, "frozen_stages": len(names) + 1})
