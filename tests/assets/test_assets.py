"""The embedded data are whole, balanced and what their scripts make."""

import hashlib
import importlib.util
import subprocess
import sys
import tomllib
import zlib
from collections import Counter
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxonet import assets
from taxonet.errors import DataError

FOLDER = Path(str(resources.files(assets)))
SCRIPTS = Path(__file__).parents[2] / "scripts"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = [
    *("t-shirt_top", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle_boot"),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assets.write_fashion_mnist(tmp_path_factory.mktemp("fashion"))


def run_script(name: str, *arguments: object) -> None:
    subprocess.run([sys.executable, SCRIPTS / name, *map(str, arguments)], check=True)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_imagenet_classes_are_a_thousand_different_names() -> None:
    names = assets.imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    assert all(name and name == name.strip() for name in names)
    known = {0: "tench", 134: "crane bird", 281: "tabby", 285: "Egyptian cat", 517: "crane"}
    known |= {638: "maillot", 639: "maillot tank suit", 967: "espresso", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known
    assert assets.imagenet_classes() is names


def test_photos_are_the_cat_and_the_coffee() -> None:
    chelsea, coffee = assets.photo_paths()
    assert (chelsea.name, coffee.name) == ("chelsea.jpg", "coffee.jpg")
    for path, size in ((chelsea, (451, 300)), (coffee, (600, 400))):
        with Image.open(path) as photo:
            photo.load()
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", size)


def test_photos_are_scikit_images(tmp_path: Path) -> None:
    skimage = importlib.util.find_spec("skimage")
    if skimage is None or skimage.origin is None:
        pytest.skip("scikit-image is not installed")
    run_script("convert_photos.py", "--source", Path(skimage.origin).parent / "data", "--out", tmp_path)
    for path in assets.photo_paths():  # another JPEG library may round otherwise
        difference = pixels(path).astype(int) - pixels(tmp_path / path.name)
        assert np.abs(difference).mean() < 1


def test_mosaic_is_balanced_and_whole() -> None:
    table = tomllib.loads((FOLDER / "fashion_mnist_2500.toml").read_text("utf-8"))
    assert table["classes"] == CLASSES
    assert table["tile"] == [28, 28]
    with Image.open(FOLDER / "fashion_mnist_2500.png") as mosaic:
        assert (mosaic.format, mosaic.mode, mosaic.size) == ("PNG", "L", (1400, 1400))
        content = mosaic.tobytes()
    for split, first, rows in (("train", 0, 40), ("test", 40, 10)):
        labels = table[split]["row_labels"]
        assert (table[split]["first_row"], len(labels)) == (first, rows)
        assert Counter(labels) == dict.fromkeys(range(10), rows // 10)
        assert table[split]["per_class"] == rows * 50 // 10
    digest = hashlib.sha256(content).hexdigest()
    assert digest == "900cddf6804e382dbdce71f3a314808096d84cb2effb6b80db393521b96a12d3"


def test_mosaic_is_what_its_script_draws(tmp_path: Path) -> None:
    if not DEBIAN.is_dir():
        pytest.skip("the Debian package dataset-fashion-mnist is not installed")
    run_script("draw_fashion_mnist.py", "--source", DEBIAN, "--out", tmp_path)
    png, toml = "fashion_mnist_2500.png", "fashion_mnist_2500.toml"
    assert (tmp_path / toml).read_text("utf-8") == (FOLDER / toml).read_text("utf-8")
    assert np.array_equal(pixels(tmp_path / png), pixels(FOLDER / png))
    if "ng" not in zlib.ZLIB_RUNTIME_VERSION:  # zlib-ng packs the same pixels into other bytes
        assert (tmp_path / png).read_bytes() == (FOLDER / png).read_bytes()


def test_fashion_mnist_unpacks_into_class_folders(unpacked: Path) -> None:
    files = sorted(path for path in unpacked.rglob("*") if path.is_file())
    counts = Counter(path.parent.relative_to(unpacked).as_posix() for path in files)
    expected = {f"train/{name}": 200 for name in CLASSES} | {f"test/{name}": 50 for name in CLASSES}
    assert counts == expected
    assert sorted(path.name for path in files) == [f"{number:04d}.png" for number in range(2500)]
    mosaic = pixels(FOLDER / "fashion_mnist_2500.png")
    for path in files:
        row, column = divmod(int(path.stem), 50)
        tile = mosaic[row * 28 : row * 28 + 28, column * 28 : column * 28 + 28]
        assert np.array_equal(pixels(path), tile), path
        assert CLASSES.index(path.parent.name) == (row // 4 if row < 40 else row - 40)
        assert path.parent.parent.name == ("train" if row < 40 else "test")


def test_unpacking_again_repairs_and_keeps_the_rest(tmp_path: Path) -> None:
    folder = assets.write_fashion_mnist(str(tmp_path / "new" / "fashion"))
    whole = {path: path.read_bytes() for path in folder.rglob("*.png")}
    broken, gone, kept = (folder / "train/bag" / f"{number}.png" for number in (1600, 1601, 1602))
    broken.write_bytes(broken.read_bytes()[:50])
    gone.unlink()
    own = folder / "train/bag/own.txt"
    own.write_text("mine")
    before = kept.stat()
    assert assets.write_fashion_mnist(folder) == folder
    assert {path: path.read_bytes() for path in folder.rglob("*.png")} == whole
    assert own.read_text() == "mine"
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match=r"cannot write the Fashion-MNIST images to '.*taken': "):
        assets.write_fashion_mnist(tmp_path / "taken")


def test_assets_load_no_heavy_part() -> None:
    code = "import sys, taxonet.assets as a; a.imagenet_classes(); a.photo_paths(); "
    code += "sys.exit(any(m in sys.modules for m in ('torch', 'numpy', 'PIL')))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_assets_are_small_and_carry_their_notices() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 2_500_000
    notice = (FOLDER / "NOTICE.md").read_text("utf-8")
    for line in (
        "Copyright (c) Soumith Chintala 2016",
        "Copyright © 2017 Zalando SE",
        "Stéfan van der Walt",
        "Rachel Michetti",
    ):
        assert line in notice
