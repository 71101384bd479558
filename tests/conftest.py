"""What the tests share: small pictures of one colour each, folders of them, and a small bundle that knows the colours.

The classes of the bundle are not in alphabetical order: a label that is renumbered on its way shows as a wrong answer.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks gain nothing from more; set before torch is loaded

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session", autouse=True)
def empty_caches(tmp_path_factory):
    """No test depends on what the user has pulled, nor writes to it, nor goes to the network."""
    root = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXONET_CACHE", str(root / "taxonet"))
        patch.setenv("TAXONET_ENGINE", "torch")  # "auto" would measure each small bundle; its own tests do
        patch.setenv("HF_HOME", str(root / "hub"))
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
        patch.setenv("TAXONET_MIRROR", "http://127.0.0.1:1")
        patch.delenv("HF_HUB_CACHE", raising=False)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        patch.delenv("HF_TOKEN", raising=False)
        patch.setenv("HF_HUB_DISABLE_XET", "1")
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        yield


COLOURS = {"red": (200, 50, 40), "green": (50, 190, 60), "blue": (40, 60, 200)}


def coloured_pixels(colour, seed=0, size=(40, 48)):
    """Noise around a colour: uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(0, 25, (*size, 3))
    return np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def colours():
    return tuple(COLOURS)


@pytest.fixture(scope="session")
def pixels():
    return coloured_pixels


@pytest.fixture(scope="session")
def paint():
    """Write a picture of a colour: `paint(path, "red", seed)`; the extension of the path is the format."""

    def write(path, colour="red", seed=0, size=(40, 48)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coloured_pixels(colour, seed, size)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def fill(paint):
    """Write class folders: `fill(root, red=3, blue=2)` makes `root/red/0.png` and so on, each of its colour."""

    def write(root, **counts):
        for colour, count in counts.items():
            for number in range(count):
                paint(root / colour / f"{number}.png", colour, seed=number)
        return root

    return write


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory):
    """A bundle of a small DenseNet-BC that tells red, green and blue (in this order) from each other."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from taxonet.images import Preprocessing
    from taxonet.networks import create_model
    from taxonet.weights.bundle import BundleInfo
    from taxonet.weights.networks import save_network

    torch.manual_seed(0)
    network = create_model("densenet_bc_22_12", num_classes=len(COLOURS)).eval()
    preprocessing = Preprocessing.parse(network.default_preprocessing)
    inputs = [preprocessing(coloured_pixels(colour, seed=100 + i)) for colour in COLOURS for i in range(10)]
    with torch.no_grad():
        features = network.pooled(network.forward_features(torch.from_numpy(np.stack(inputs))))
        head = LogisticRegression(C=1.0, max_iter=1000).fit(features.numpy(), np.repeat(range(len(COLOURS)), 10))
        network.classifier.weight.copy_(torch.from_numpy(head.coef_))
        network.classifier.bias.copy_(torch.from_numpy(head.intercept_))
    path = tmp_path_factory.mktemp("bundle") / "colours.safetensors"
    save_network(path, BundleInfo(network.variant, tuple(COLOURS), str(preprocessing)), network)
    return path


@pytest.fixture(scope="session")
def colour_classifier(small_bundle):
    from taxonet.inference import load

    return load(small_bundle)


@pytest.fixture(scope="session")
def broken_jpeg(tmp_path_factory):
    """A JPEG that ends in the middle of its pixels."""
    folder = tmp_path_factory.mktemp("broken")
    Image.fromarray(coloured_pixels("red", size=(64, 64))).save(folder / "whole.jpg")
    data = (folder / "whole.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(data[: len(data) // 2])
    return folder / "broken.jpg"


@pytest.fixture(scope="session")
def huge_png(tmp_path_factory):
    """A small file that decodes to 30,000 × 30,000 pixels."""
    side = 30_000
    rows = zlib.compressobj(9)
    block = b"\0" * (side // 8 + 1) * 1000  # a row is a filter byte and one bit a pixel
    data = b"".join(rows.compress(block) for _ in range(side // 1000)) + rows.flush()
    path = tmp_path_factory.mktemp("huge") / "huge.png"
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b""),
    )
    return path


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.fixture(scope="session")
def pickle_file(tmp_path_factory):
    """A PyTorch checkpoint: a pickle, never a model of ours."""
    import torch

    path = tmp_path_factory.mktemp("pickle") / "model.pth"
    torch.save({"weight": torch.zeros(2)}, path)
    return path


@pytest.fixture(scope="session")
def run_taxonet():
    """Run the installed command in a process of its own: `.returncode`, `.stdout`, `.stderr`."""
    script = Path(sys.executable).with_name("taxonet")

    def run(*arguments, **options):
        options = {"text": True, "encoding": "utf-8", **options}
        return subprocess.run([script, *map(str, arguments)], capture_output=True, check=False, **options)

    return run
