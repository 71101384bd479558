"""A data set that a small network learns in seconds: classes are colours, with noise on top."""

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def write_colours(folder, count, seed=0, size=20):
    rng = np.random.default_rng(seed)
    for label, colour in COLOURS.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = rng.normal(0, 60, (size, size + 4, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("colours"), 20)


QUICK = {"model": "densenet_bc_22_12", "image_size": 16, "batch_size": 16, "epochs": 3, "lr": 0.1}
