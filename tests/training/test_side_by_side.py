"""`train_and_compare`: one budget, one split, and resumable."""

import csv
import json

import pytest

from taxonet.errors import UsageError
from taxonet.evaluation import evaluate
from taxonet.training import train, train_and_compare
from taxonet.training.recipe import read_recipe

MODELS = ["densenet_bc_22_12", "resnet20_cifar"]
QUICK = {"image_size": 16, "batch_size": 16, "epochs": 1, "lr": 0.05, "runs": 0, "seed": 3}


def val_rows(run):
    with (run / "val.csv").open(newline="") as file:
        return sorted(csv.reader(file))


@pytest.fixture(scope="module")
def trained(colours, tmp_path_factory):
    return train_and_compare(colours, MODELS, out=tmp_path_factory.mktemp("side") / "runs", **QUICK)


def test_all_are_trained_on_one_split_under_one_recipe(trained):
    recipes = [read_recipe(run / "recipe.toml") for run in trained.runs.values()]
    assert list(trained.runs) == MODELS
    assert len({(r.epochs, r.seed, r.lr, r.batch_size, r.image_size, r.optimizer) for r in recipes}) == 1
    assert len({json.dumps(val_rows(run)) for run in trained.runs.values()}) == 1
    assert len({json.loads((run / "run.json").read_text())["fingerprint"] for run in trained.runs.values()}) == 1
    assert "recipe scratch, 1 epochs, seed 3" in trained.notes[0]


def test_the_comparison_is_of_the_held_out_photos(trained, colours):
    comparison = trained.comparison
    assert (comparison.n, comparison.split, comparison.source) == (12, "val", str(colours))
    for model in comparison.models:
        run = trained.runs[model.name]
        assert model.metrics == evaluate(run / "model.safetensors", run / "val.csv").metrics
    json.dumps(trained.as_dict())


def test_resume_keeps_what_is_finished_and_trains_the_rest(trained, colours, tmp_path):
    out = tmp_path / "runs"
    train_and_compare(colours, MODELS, out=out, **QUICK)
    finished = (out / MODELS[0] / "model.safetensors").stat().st_mtime_ns
    second = out / MODELS[1]
    bundle = (second / "model.safetensors").read_bytes()
    for file in ("model.safetensors", "report.html", "recipe.toml"):
        (second / file).unlink()
    for file in (second / "last").iterdir():
        file.unlink()
    (second / "last").rmdir()
    (second / "log.jsonl").unlink()  # as if it was killed as it began
    again = train_and_compare(colours, MODELS, out=out, resume=True, **QUICK)
    assert (out / MODELS[0] / "model.safetensors").stat().st_mtime_ns == finished
    assert len((second / "model.safetensors").read_bytes()) == len(bundle)
    assert [m.metrics for m in again.comparison.models] == [m.metrics for m in trained.comparison.models]


def test_a_stopped_comparison_says_so_and_goes_on(trained, colours, tmp_path, monkeypatch):
    """Ctrl-C in the second network's first epoch: the first one's run stays, the second goes on."""
    import os
    import signal

    from taxonet.training import side_by_side

    def stopped_in_the_second(*arguments, **wishes):
        if wishes["out"].name == MODELS[1] and not wishes["resume"]:
            from taxonet.training import loop

            real = loop._train_epoch

            def stop_first(training, stopped):
                monkeypatch.setattr(loop, "_train_epoch", real)
                os.kill(os.getpid(), signal.SIGINT)
                real(training, stopped)

            monkeypatch.setattr(loop, "_train_epoch", stop_first)
        return train(*arguments, **wishes)

    monkeypatch.setattr(side_by_side, "train", stopped_in_the_second)
    out = tmp_path / "runs"
    first = train_and_compare(colours, MODELS, out=out, **QUICK)
    assert first.interrupted
    assert list(first.runs) == MODELS[:1]
    assert first.as_dict()["comparison"] is None
    second = train_and_compare(colours, MODELS, out=out, resume=True, **QUICK)
    assert [m.metrics for m in second.comparison.models] == [m.metrics for m in trained.comparison.models]


def test_wishes_that_differ_from_those_of_the_stopped_one_are_refused(trained, colours):
    with pytest.raises(UsageError, match="has epochs 1, not 2; it keeps its own"):
        train_and_compare(colours, MODELS, out=trained.out, resume=True, **{**QUICK, "epochs": 2})
    with pytest.raises(UsageError, match="has models"):
        train_and_compare(colours, [*MODELS, "resnet32_cifar"], out=trained.out, resume=True, **QUICK)
    with pytest.raises(UsageError, match="has budget nothing of its own, not 1m; it keeps its own"):
        train_and_compare(colours, MODELS, out=trained.out, resume=True, budget="1m")
    kept = train_and_compare(colours, MODELS, out=trained.out, resume=True, runs=0)  # needs nothing again
    assert kept.runs == trained.runs
    with pytest.raises(UsageError, match="not empty; add --resume"):
        train_and_compare(colours, MODELS, out=trained.out, **QUICK)


def test_a_mistake_shows_before_anything_is_trained(colours, tmp_path):
    out = tmp_path / "runs"
    for models, values, sentence in (
        (["densenet_bc_22_12"], {}, "at least two networks"),
        (["densenet_bc_22_12", "densenet_bc_22_12"], {}, "given twice"),
        (["densenet_bc_22_12", "resnet20_cifarr"], {}, "did you mean 'resnet20_cifar'"),
        (MODELS, {"epoch": 3}, "did you mean 'epochs'"),
        (MODELS, {"runs": -1}, "runs is -1, it must be at least 0"),
        (MODELS, {"engine": "torhc"}, "did you mean 'torch'"),
        (MODELS, {"weights": "some.pth"}, "must be one of auto, own, none"),
    ):
        with pytest.raises(UsageError, match=sentence):
            train_and_compare(colours, models, out=out, **values)
    assert not out.exists()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"cannot make the folder .*notes.txt' is not a folder"):
        train_and_compare(colours, MODELS, out=tmp_path / "notes.txt" / "runs", **QUICK)


def test_weights_of_some_only_are_not_an_even_start(colours, tmp_path, monkeypatch):
    """efficientnet_lite0 has weights and resnet20_cifar has none: all start fresh unless `own` is asked."""
    from taxonet.training import side_by_side

    starts = []

    class Stop(Exception):  # noqa: N818
        pass

    def note(data, **wishes):
        starts.append(wishes["weights"])
        raise Stop

    monkeypatch.setattr(side_by_side, "train", note)
    for number, weights in enumerate(("auto", "own")):
        with pytest.raises(Stop):
            train_and_compare(
                colours, ["efficientnet_lite0", "resnet20_cifar"], out=tmp_path / str(number), weights=weights
            )
    assert starts == ["none", "auto"]
