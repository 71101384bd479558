"""The data inside the package: the ImageNet class names, two photos and 2,500 Fashion-MNIST images.

Where each comes from and its licence: `NOTICE.md` in this folder. The package is always installed unpacked
(installers unzip a wheel), so these resources are ordinary files and their paths can be handed on.
"""

import io
import os
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from taxonet.errors import DataError

_FOLDER = Path(str(resources.files(__name__)))


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The 1000 ImageNet-1k class names in index order, all different."""
    return tuple((_FOLDER / "imagenet_classes.txt").read_text("utf-8").splitlines())


def photo_paths() -> tuple[Path, ...]:
    """Two photographs in the public domain: a cat (`chelsea.jpg`) and a cup of coffee (`coffee.jpg`)."""
    return _FOLDER / "chelsea.jpg", _FOLDER / "coffee.jpg"


def write_fashion_mnist(folder: str | os.PathLike[str]) -> Path:
    """Unpack 2,000 training and 500 test images into `folder/train/<class>/` and `folder/test/<class>/`.

    A file is named by its tile in the mosaic, `0000.png` to `2499.png`. Files already right are left alone,
    others appear whole or not at all, so a stopped call is finished by calling again; nothing is deleted.
    """
    import numpy as np
    from PIL import Image

    folder = Path(folder)
    table = tomllib.loads((_FOLDER / "fashion_mnist_2500.toml").read_text("utf-8"))
    height, width = table["tile"]
    with Image.open(_FOLDER / "fashion_mnist_2500.png") as mosaic:
        grid = np.asarray(mosaic).reshape(-1, height, mosaic.width // width, width).swapaxes(1, 2)
    columns = grid.shape[1]
    try:
        for split in ("train", "test"):
            first = table[split]["first_row"]
            for row, label in enumerate(table[split]["row_labels"], start=first):
                home = folder / split / table["classes"][label]
                home.mkdir(parents=True, exist_ok=True)
                for column in range(columns):
                    buffer = io.BytesIO()
                    Image.fromarray(grid[row, column]).save(buffer, "PNG")
                    _write(home / f"{row * columns + column:04d}.png", buffer.getvalue(), scratch=folder)
    except OSError as error:
        raise DataError(f"cannot write the Fashion-MNIST images to '{folder}': {error.strerror or error}") from error
    return folder


def _write(path: Path, content: bytes, scratch: Path) -> None:
    """Make `path` hold `content`, whole at once; `scratch` takes the unfinished file, out of the class folders."""
    if path.is_file() and path.read_bytes() == content:
        return
    unfinished = scratch / f".unfinished-{os.getpid()}"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
