"""What the bundle keeps of its training pictures: of all of them evenly, in whatever order they come."""

import numpy as np
from PIL import Image

from taxonet.data import Sample
from taxonet.images import Preprocessing
from taxonet.training.inputs import PICTURES, input_statistics

STEPS = Preprocessing.parse("rgb | squash(16, 16) | normalize(half)")


def test_pictures_sorted_by_class_all_have_their_part(tmp_path):
    count = 2 * PICTURES - 1
    samples = [
        Sample(tmp_path / f"{number:03}.png", "dark" if number < count // 2 else "light") for number in range(count)
    ]
    for sample in samples:
        value = 10 if sample.label == "dark" else 245
        Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(sample.path)
    found = input_statistics(samples, STEPS)["inputs"]
    assert found["n"] == PICTURES
    assert abs(found["features"]["brightness"]["mean"] - 0.5) < 0.01
    assert found["features"]["brightness"]["std"] > 0.4


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert input_statistics([Sample(tmp_path / "broken.png", "a")], STEPS) == {}
