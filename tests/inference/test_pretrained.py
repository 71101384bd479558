"""The real ImageNet weights on real photographs, and weights that are not what the catalogue says."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import skimage.data

import taxonet
from taxonet.assets import imagenet_classes

CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "cougar", "lynx", "leopard", "snow leopard"}


@pytest.fixture(scope="module")
def lite0():
    return taxonet.load("efficientnet_lite0")


def test_twenty_imagenet_photos(lite0):
    """foolbox brings twenty photos of ImageNet, `imagenet_NN_CLASS.jpg`."""
    photos = sorted((Path(find_spec("foolbox").origin).parent / "data").glob("imagenet_*.jpg"))
    truth = [int(path.stem.split("_")[2]) for path in photos]
    assert len(photos) == 20
    ranks = [[p.index for p in answer.predictions] for answer in lite0.predict(photos)]
    assert sum(rank[0] == index for rank, index in zip(ranks, truth, strict=True)) >= 18
    assert sum(index in rank for rank, index in zip(ranks, truth, strict=True)) >= 19


def test_a_cat_and_a_coffee(lite0):
    cat, coffee = lite0.predict([skimage.data.chelsea(), skimage.data.coffee()])
    assert {p.label for p in cat.predictions[:3]} <= CATS
    assert coffee.label == "espresso"
    assert lite0.classes == imagenet_classes()


@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_the_larger_ones(name):
    (answer,) = taxonet.load(name).predict(skimage.data.coffee())
    assert answer.label in {"espresso", "cup", "coffee mug"}


def test_the_catalogue_s_own_name_and_an_alias_open_the_same(lite0):
    expected = lite0.predict_proba(skimage.data.coffee())
    for name in ("efficientnet_lite0.tpu_in1k", "tf_efficientnet_lite0"):
        assert (taxonet.load(name).predict_proba(skimage.data.coffee()) == expected).all()
