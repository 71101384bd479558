import argparse
import hashlib
import logging
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from taxonet.errors import BundleError
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of

WEIGHTS = {"z.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1, 2]), "m": torch.ones(1)}


class Payload:
    """Unpickled, it would create a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


class EvalPayload(Payload):
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (f"open({str(self.marker)!r}, 'w').close()",)


def saved(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def check(tensors: dict[str, torch.Tensor]) -> None:
    assert list(tensors) == list(WEIGHTS)
    assert all(torch.equal(tensors[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".th", ".bin", ".tar"])
@pytest.mark.parametrize("zip_format", [True, False])
def test_plain_checkpoints(tmp_path: Path, suffix: str, zip_format: bool) -> None:
    path = tmp_path / f"weights{suffix}"
    check(read_checkpoint(saved(path, WEIGHTS, _use_new_zipfile_serialization=zip_format)))


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in WEIGHTS.items()}


@pytest.mark.parametrize(
    "content",
    [
        OrderedDict(WEIGHTS),
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {}}},
        {"model": WEIGHTS, "lr_scheduler": {"a": [1]}},
        {"model_state_dict": WEIGHTS},
        {"state_dict": prefixed("module."), "best_prec1": 92.6},
        {"net": prefixed("module."), "acc": 95.0},
        {"model": prefixed("_orig_mod.module.")},
        {"model": {"x": torch.zeros(1)}, "model_ema": prefixed("module.") | {"n_averaged": torch.tensor(5)}},
        {"model": {"state_dict": WEIGHTS}},
        {name: torch.nn.Parameter(value, requires_grad=value.is_floating_point()) for name, value in WEIGHTS.items()},
        WEIGHTS | {"epoch": 3, "arch": "resnet", "optimizer": {"lr": 0.1}, "best": None},
    ],
)
def test_wrappers_and_prefixes(tmp_path: Path, content: Any) -> None:
    tensors = read_checkpoint(saved(tmp_path / "weights.pth", content))
    check(tensors)
    assert not any(tensor.requires_grad or type(tensor) is not torch.Tensor for tensor in tensors.values())


def test_what_is_ignored_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read_checkpoint(saved(tmp_path / "weights.pth", WEIGHTS | {"epoch": 3}))
    assert "ignored 'epoch': 3 describes the training and is no weight" in caplog.text


def test_one_prefixed_name_among_others_is_kept(tmp_path: Path) -> None:
    content = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert list(read_checkpoint(saved(tmp_path / "weights.pth", content))) == ["module.a", "b"]


def test_safetensors_plain_and_bundle(tmp_path: Path, bundle: Path, state: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "plain.bin"  # the content decides, not the name
    save_file(prefixed("module."), path)
    assert set(read_checkpoint(path)) == set(WEIGHTS)
    assert set(read_checkpoint(bundle)) == set(state)


@pytest.mark.parametrize("kind", [Payload, EvalPayload])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle 2", "pickle 4"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_malicious_pickle_is_refused_and_does_not_run(
    tmp_path: Path, kind: type[Payload], how: str, suffix: str
) -> None:
    marker = tmp_path / "marker"
    path = tmp_path / f"evil{suffix}"
    content = {"state_dict": WEIGHTS, "extra": kind(marker)}
    if how.startswith("pickle"):
        path.write_bytes(pickle.dumps({"extra": kind(marker)}, protocol=int(how[-1])))
    else:
        saved(path, content, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(BundleError) as caught:
        read_checkpoint(path)
    assert not marker.exists()
    reason = "which can run any code" if suffix == ".pth" else "it is a PyTorch pickle checkpoint"
    assert reason in str(caught.value)
    assert "weights_only=False" not in str(caught.value)
    if how == "zip" and suffix == ".pth":  # the payload is real: read the unsafe way, it would run
        torch.load(path, weights_only=False)
        assert marker.exists()


def test_the_environment_cannot_make_it_unsafe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path = saved(tmp_path / "evil.pth", {"w": Payload(tmp_path / "marker")})
    with pytest.raises(BundleError, match="is refused"):
        read_checkpoint(path)
    assert not (tmp_path / "marker").exists()


def test_other_objects_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", WEIGHTS | {"args": argparse.Namespace(lr=0.1)})
    with pytest.raises(BundleError, match=r"asks for 'argparse\.Namespace'.*get the weights as a safetensors"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(BundleError, match="a TorchScript program, not weights"):
        read_checkpoint(path)


def itself() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["model"] = content
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "it holds no tensors, only nothing"),
        ({"epoch": 3}, "it holds no tensors, only 'epoch'"),
        ({"state_dict": {}}, "it holds no tensors"),
        ([1, 2], "it holds a list of 2, not tensors by their names"),
        (torch.zeros(2), "it holds a Tensor, not tensors by their names"),
        (itself(), "it holds a mapping of 1, not tensors by their names"),
        (WEIGHTS | {"history": [1, 2]}, "beside tensors it holds 'history', a list of 2, which is no weight"),
        (WEIGHTS | {"layer.scale": 0.5}, "beside tensors it holds 'layer.scale', 0.5"),
        ({3: torch.zeros(1)}, "beside tensors it holds 3, a Tensor"),
        ({"s": torch.eye(2).to_sparse()}, "the tensor 's' is not a dense tensor"),
        ({"x": torch.zeros(1).expand(10**12)}, "the tensor 'x' claims more values than the file holds"),
    ],
)
def test_files_without_usable_tensors(tmp_path: Path, content: Any, sentence: str) -> None:
    with pytest.raises(BundleError, match=f"cannot read '.*': {sentence}"):
        read_checkpoint(saved(tmp_path / "weights.pth", content))


def test_damaged_files(tmp_path: Path) -> None:
    path = saved(tmp_path / "weights.pth", WEIGHTS)
    whole = path.read_bytes()
    legacy = saved(tmp_path / "l.pth", WEIGHTS, _use_new_zipfile_serialization=False).read_bytes()
    for data in (whole, legacy):
        for end in range(0, len(data) - 1, 37):
            path.write_bytes(data[:end])
            with pytest.raises(BundleError, match="cannot read"):
                read_checkpoint(path)


def test_other_zips_and_zip_bombs(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "text")
    with pytest.raises(BundleError, match="a zip archive, but not a PyTorch checkpoint"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**6))
    with pytest.raises(BundleError, match="a compressed zip archive"):
        read_checkpoint(path)


def test_missing_folder_text_and_tensorless_files(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no such file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(BundleError, match="it is a folder"):
        read_checkpoint(tmp_path)
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(BundleError, match="it is a text file"):
        read_checkpoint(tmp_path / "text.pth")
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(BundleError, match="it holds no tensors"):
        read_checkpoint(tmp_path / "none.safetensors")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    with pytest.raises(BundleError, match="there is no such file"):
        sha256_of(tmp_path / "b")
