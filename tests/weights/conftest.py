import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.weights.server import serving

from taxonet.weights.bundle import BundleInfo, save_bundle

CREATED = "2026-11-23T09:30:00Z"


@pytest.fixture
def info() -> BundleInfo:
    return BundleInfo(
        variant="densenet121",
        options={"in_channels": 3, "growth": [12, 24], "bias": False, "note": None},
        classes=("oak", "wild boar", "Käfer", "猫"),
        preprocessing="exif | rgb | resize(256, bicubic) | center_crop(224) | normalize(imagenet)",
        temperature=1.25,
        threshold=0.4,
        metrics={"top1": 0.93, "top1_ci": [0.91, 0.95], "n": 1000},
        licence="Apache-2.0",
        provenance={"seed": 3, "recipe": {"epochs": 10, "lr": 1e-3}, "parent": None},
        created=CREATED,
    )


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "stem.running_mean": torch.randn(4, generator=generator).double(),
        "half": torch.randn(5, generator=generator).half(),
        "brain": torch.randn(5, generator=generator).bfloat16(),
        "num_batches_tracked": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "empty": torch.empty(0, 3),
    }


@pytest.fixture
def bundle(tmp_path: Path, info: BundleInfo, state: dict[str, torch.Tensor]) -> Path:
    path = tmp_path / "model.safetensors"
    save_bundle(path, info, state)
    return path


@pytest.fixture
def forge(tmp_path: Path) -> Callable[..., Path]:
    """Write a safetensors file from any header (an object, or the raw text) and data."""

    def write(header: Any, data: bytes = b"", name: str = "forged.safetensors") -> Path:
        raw = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = tmp_path / name
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
        return path

    return write


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that is the hub and the mirror of every URL, and caches of this test alone."""
    with serving() as book:
        monkeypatch.setenv("HF_ENDPOINT", book.url)
        monkeypatch.setenv("TAXONET_MIRROR", f"{book.url}/mirror")
        monkeypatch.setenv("TAXONET_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        yield book
