"""A run on a GPU: it ends with its report, learns from a teacher and goes on where it was stopped."""

import pytest
import torch
from safetensors.torch import load_file

import taxonet
from taxonet.errors import UsageError
from taxonet.processes import join

QUICK = {"model": "densenet_bc_22_12", "image_size": 16, "batch_size": 16, "epochs": 1, "lr": 1e-6}  # it learns nothing
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@on_gpu
def test_a_run_on_a_gpu_with_explanation_teacher_and_resume(colours, tmp_path, capsys):
    teacher = taxonet.train(colours, out=tmp_path / "teacher", progress=True, **QUICK)
    assert torch.cuda.get_device_name() in capsys.readouterr().err
    assert 'alt="what spoke for ' in teacher.report.read_text("utf-8")

    options = {**QUICK, "teacher": str(teacher.bundle), "ema_decay": 0.9, "balance": "loss", "device": "cuda"}
    whole = taxonet.train(colours, out=tmp_path / "whole", **options)
    stopped = taxonet.train(colours, out=tmp_path / "run", **options)
    newest = max((tmp_path / "run" / "last").glob("checkpoint-*"))
    newest.unlink()  # as a run that was killed before its last checkpoint
    stopped.bundle.unlink()
    resumed = taxonet.train(colours, out=tmp_path / "run", resume=True, device="cuda")
    ours, theirs = load_file(resumed.bundle), load_file(whole.bundle)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


@on_gpu
def test_a_run_of_the_gpu_goes_on_on_the_cpu(colours, tmp_path):
    taxonet.train(colours, out=tmp_path / "run", device="cuda", precision="auto", **QUICK)
    max((tmp_path / "run" / "last").glob("checkpoint-*")).unlink()
    assert taxonet.train(colours, out=tmp_path / "run", resume=True, device="cpu").validation is not None


@on_gpu
def test_the_head_of_a_fine_tuned_network_is_fitted_on_the_gpu(colours, tmp_path):
    start = taxonet.train(colours, out=tmp_path / "start", **QUICK)
    options = {"model": QUICK["model"], "weights": str(start.bundle), "image_size": 16}
    for recipe, values in (("finetune", {"epochs": 1}), ("features", {})):
        result = taxonet.train(colours, out=tmp_path / recipe, recipe=recipe, **values, **options)
        assert result.recipe.precision in ("float32", "bfloat16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused():
    with join("auto") as world:
        assert world.device == torch.device("cpu")
    with pytest.raises(UsageError, match="device is 'cuda', and torch finds no GPU here"), join("cuda"):
        pass


def test_a_device_that_is_none_is_refused(colours, tmp_path):
    with pytest.raises(UsageError, match="device is 'gpu', it must be one of auto, cpu, cuda"):
        taxonet.train(colours, out=tmp_path / "run", device="gpu", **QUICK)
