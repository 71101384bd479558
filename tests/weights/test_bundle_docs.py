"""The examples of docs/bundle.md are run as they stand there."""

import re
from pathlib import Path

import pytest
import torch

from taxonet.weights.bundle import BundleInfo, save_bundle

PAGE = (Path(__file__).parents[2] / "docs" / "bundle.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_full_example_is_valid() -> None:
    (example,) = blocks("json")
    info = BundleInfo.from_json(example)
    assert info.classes == ("beech", "oak", "spruce")
    assert info.provenance["recipe"]["lr"] == 0.001
    assert BundleInfo.from_json(info.to_json()) == info


@pytest.mark.parametrize("code", blocks("python"))
def test_the_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = torch.nn.Linear(3, 2)
    monkeypatch.chdir(tmp_path)
    save_bundle("model.safetensors", BundleInfo("linear", ("a", "b"), "rgb"), network.state_dict())
    exec(code, {"network": network})
