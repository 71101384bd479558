"""Small pictures with something to see in them: crops of scikit-image's photos, each class from one photo."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

PHOTOS = ("coffee", "astronaut", "cat")


def crops(name, count, size=(72, 96), seed=0):
    """Different crops of a photo, at different places and scales: uint8 (H, W, 3)."""
    photo = Image.fromarray(getattr(skimage.data, name)())
    rng = np.random.default_rng(seed)
    for _ in range(count):
        width = int(rng.uniform(0.3, 0.5) * photo.width)
        height = width * size[0] // size[1]
        left, top = rng.integers(0, photo.width - width), rng.integers(0, photo.height - height)
        yield photo.resize((size[1], size[0]), Image.Resampling.BICUBIC, (left, top, left + width, top + height))


@pytest.fixture
def photos(tmp_path):
    """`photos/coffee/0.png` and so on: three classes of twelve different pictures."""
    for name in PHOTOS:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number, image in enumerate(crops(name, 12)):
            image.save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def found():
    """Check without the labels: `found(data)["blank"]` is the list of (path, also)."""
    from taxonet.checking import check

    def run(data):
        kinds = {}
        for issue in check(data, labels=False).issues:
            kinds.setdefault(issue.kind, []).append((issue.path, issue.also))
        return kinds

    return run
