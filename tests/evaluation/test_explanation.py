"""Explanations: a patch that alone decides the answer is found, maps follow the target, and the parts add up."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from taxonet.errors import ImageError, UsageError
from taxonet.evaluation.explanation import METHODS, Explainer, explain
from taxonet.evaluation.overlay import blend, caption, write_overlay
from taxonet.inference import Classifier
from taxonet.inference.engines import TorchEngine
from taxonet.networks import create_model
from taxonet.networks.registry import find
from taxonet.weights.bundle import BundleInfo

PATCHES = {"red": (230, 40, 40), "green": (40, 210, 60), "blue": (40, 70, 230)}
SIDE, PATCH = 32, 9


def planted(rng, *labels):
    """Grey noise with a patch of each label, none over another, and where their upper left corners are."""
    pixels = rng.normal(128, 20, (SIDE, SIDE, 3))
    corners = []
    for label in labels:
        while True:
            x, y = rng.integers(0, SIDE - PATCH, 2)
            if all(abs(x - a) > PATCH or abs(y - b) > PATCH for a, b in corners):
                break
        pixels[y : y + PATCH, x : x + PATCH] = np.array(PATCHES[label]) + rng.normal(0, 15, (PATCH, PATCH, 3))
        corners.append((x, y))
    return np.clip(pixels, 0, 255).astype(np.uint8), corners


def as_classifier(network, classes=tuple(PATCHES)):
    preprocessing = f"rgb | squash({SIDE}, {SIDE}) | normalize(half)"
    return Classifier(BundleInfo(network.variant, classes, preprocessing), TorchEngine(network.eval(), preprocessing))


@pytest.fixture(scope="module")
def spotter():
    """A small network trained so that a patch of a colour, and nothing else, raises the logit of its class."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = create_model("resnet20_cifar", num_classes=3)
    classifier = as_classifier(network)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    network.train()
    for _ in range(60):
        there = [rng.choice(3, rng.integers(1, 3), replace=False) for _ in range(32)]
        pixels = np.stack([planted(rng, *(tuple(PATCHES)[label] for label in labels))[0] for labels in there])
        truth = torch.stack([torch.zeros(3).index_fill(0, torch.from_numpy(labels), 1.0) for labels in there])
        images = torch.from_numpy(classifier.preprocessing.normalized(pixels))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    tests = [(label, planted(rng, label)[0]) for label in PATCHES for _ in range(5)]
    assert all(classifier.predict(pixels)[0].label == label for label, pixels in tests)
    return classifier


def points_at(explanation, corner, margin=4):
    """Whether the strongest place lies on the patch, or within half a cell of the 8×8 map around it."""
    values = explanation.map
    if explanation.method == "integrated_gradients":  # single pixels are noisy: where is most of it?
        values = np.abs(values)
        kernel = np.ones(5) / 5
        values = np.apply_along_axis(lambda v: np.convolve(v, kernel, "same"), 0, values)
        values = np.apply_along_axis(lambda v: np.convolve(v, kernel, "same"), 1, values)
    y, x = np.unravel_index(values.argmax(), values.shape)
    left, upper = corner
    return bool(left - margin <= x < left + PATCH + margin and upper - margin <= y < upper + PATCH + margin)


@pytest.mark.parametrize("method", METHODS)
def test_the_patch_that_decides_is_found(spotter, method):
    rng = np.random.default_rng(1)
    explainer = Explainer(spotter, method=method)
    hits = 0
    for number in range(9):
        pixels, (corner,) = planted(rng, tuple(PATCHES)[number % 3])
        hits += points_at(explainer(pixels), corner)
    assert hits >= 8  # chance would find two or three: the patch and its margin are 28 % of the picture


@pytest.mark.parametrize("method", ["gradcam", "occlusion"])
def test_the_map_follows_the_target(spotter, method):
    rng = np.random.default_rng(2)
    red, blue = (Explainer(spotter, method=method, target=label) for label in ("red", "blue"))
    own, other = 0, 0
    for _ in range(6):
        pixels, (on_red, on_blue) = planted(rng, "red", "blue")
        first, second = red(pixels), blue(pixels)
        assert (first.target, second.target) == ("red", "blue")
        assert first.label == second.label
        own += points_at(first, on_red, 2) + points_at(second, on_blue, 2)
        other += points_at(first, on_blue, 2) + points_at(second, on_red, 2)
    assert own >= 10
    assert other <= 3


def test_shares_of_integrated_gradients_add_up(spotter):
    rng = np.random.default_rng(3)
    explainer = Explainer(spotter, method="integrated_gradients")
    network = spotter.engine.network
    for label in PATCHES:
        pixels, _ = planted(rng, label)
        found = explainer(pixels)
        inputs = torch.from_numpy(spotter.preprocessing.normalized(pixels[None]))
        with torch.no_grad():
            ends = network(torch.cat([inputs, torch.zeros_like(inputs)]))[:, list(PATCHES).index(label)]
        difference = float(ends[0] - ends[1])
        assert float(found.map.sum()) == pytest.approx(difference, abs=0.05 * abs(difference) + 1e-4)
        assert found.residual == pytest.approx(float(found.map.sum()) - difference, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_depends_on_the_weights(spotter, method):
    torch.manual_seed(5)
    fresh = as_classifier(create_model("resnet20_cifar", num_classes=3))
    rng = np.random.default_rng(4)
    ranks = []
    for number in range(4):
        pixels, _ = planted(rng, tuple(PATCHES)[number % 3])
        maps = [Explainer(c, method=method, target="green")(pixels).map for c in (spotter, fresh)]
        constant = any(np.ptp(values) == 0 for values in maps)  # nothing left of the map: that is a change too
        ranks.append(0.0 if constant else spearmanr(maps[0].ravel(), maps[1].ravel()).statistic)
    assert np.mean(np.abs(ranks)) < 0.6


FAMILIES = [
    "densenet_bc_22_12",
    "mobilenet_v3_small",
    "se_bn_inception",
    "dpn68",
    "igc_l4m8_38",
    "alexnet",
    "googlenet",
    "preresnet164_cifar",
    "attention56_cifar",
    "shufflenet_v1_g3_x1_0",
    "nfnet_f0",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_network_is_explained(name):
    """Without norms, pre-activation, with auxiliary heads, with attention, with hidden layers behind the last map."""
    options = {"aux_heads": True} if "aux_heads" in find(name).options() else {}
    network = create_model(name, num_classes=3, **options).eval()
    size = 64 if "224" in network.default_preprocessing or "256" in network.default_preprocessing else 32
    info = BundleInfo(name, ("a", "b", "c"), f"rgb | squash({size}, {size}) | normalize(half)", options=options)
    classifier = Classifier(info, TorchEngine(network, info.preprocessing))
    photo = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found = Explainer(classifier, target="b")(photo)
    assert found.map.shape == (size, size)
    assert found.map.dtype == np.float32
    assert np.isfinite(found.map).all()
    assert found.map.min() >= 0
    assert found.layer in [child for child, _ in network.body.named_children()]
    first = Explainer(classifier, target="b", layer="stem" if hasattr(network.body, "stem") else None)(photo)
    assert first.map.shape == found.map.shape
    assert all(parameter.grad is None for parameter in network.parameters())


def test_explaining_leaves_the_network_as_it_was(spotter):
    network = spotter.engine.network
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pixels, _ = planted(np.random.default_rng(6), "red")
    network.train()
    try:
        for method in METHODS:
            Explainer(spotter, method=method)(pixels)
        assert network.training
    finally:
        network.eval()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_what_the_network_saw_is_told_in_the_photos_pixels(colour_classifier, tmp_path):
    photo = Image.new("RGB", (80, 200), (200, 50, 40))  # upright after EXIF: 200 × 80
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    info = BundleInfo(
        colour_classifier.info.variant,
        colour_classifier.classes,
        "exif | rgb | resize(40, bicubic) | center_crop(32) | normalize(cifar10)",
    )
    found = explain(Classifier(info, colour_classifier.engine), tmp_path / "turned.jpg")
    assert found.photo_size == (200, 80)
    assert found.photo.size == (200, 80)
    assert found.region == (68, 8, 132, 72)  # 32 of 40 pixels at twice the size, in the middle
    text = caption(found)
    for part in ("red", f"{found.probability:.3f}", "gradcam", found.layer, "x 68 to 132, y 8 to 72", "200×80"):
        assert part in text
    assert info.preprocessing in text


def test_overlay_is_a_picture_with_the_map_where_it_belongs(spotter, tmp_path):
    pixels, (corner,) = planted(np.random.default_rng(8), "blue")
    found = explain(spotter, pixels, method="occlusion")
    drawn = blend(found).astype(int)
    y, x = np.unravel_index(found.map.argmax(), found.map.shape)
    assert drawn.shape == (SIDE, SIDE, 3)
    assert drawn[y, x, 0] > drawn[y, x, 2]  # red where it speaks for the target, though the patch is blue
    assert points_at(found, corner)
    write_overlay(tmp_path / "a.png", found)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.width > 800


def test_a_map_of_zeros_is_said_and_drawn(spotter, tmp_path):
    network = create_model("resnet20_cifar", num_classes=3)
    torch.nn.init.zeros_(network.classifier.weight)
    found = explain(as_classifier(network), planted(np.random.default_rng(9), "red")[0])
    assert not found.map.any()
    assert "zero everywhere" in caption(found)
    write_overlay(tmp_path / "zero.png", found)


def test_grey_networks_are_explained(tmp_path):
    network = create_model("densenet_bc_22_12", num_classes=2, in_channels=1)
    info = BundleInfo(
        network.variant, ("$a_b^", "猫"), "grey | squash(32, 32) | normalize(half)", options={"in_channels": 1}
    )
    found = explain(
        Classifier(info, TorchEngine(network, info.preprocessing)), np.zeros((40, 50), np.uint8), method="occlusion"
    )
    assert found.pixels.shape == (32, 32, 1)
    write_overlay(tmp_path / "grey.png", found)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"method": "grad-cam"}, "did you mean 'gradcam'"),
        ({"target": "gren"}, "did you mean 'green'"),
        ({"layer": "stage9"}, "has no stage 'stage9'"),
        ({"layer": "stage1", "method": "occlusion"}, "looks at no layer"),
    ],
)
def test_wrong_wishes_are_refused_with_a_sentence(spotter, asked, sentence):
    with pytest.raises(UsageError, match=sentence):
        explain(spotter, np.zeros((32, 32, 3), np.uint8), **asked)


def test_what_is_no_photo_is_refused_and_the_others_are_explained(spotter, broken_jpeg):
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    with pytest.raises(ImageError, match="truncated or damaged"):
        explain(spotter, broken_jpeg)
    first, second = Explainer(spotter).each([broken_jpeg, buffer.getvalue()])
    assert isinstance(first, str)
    assert second.map.shape == (SIDE, SIDE)


def test_an_engine_that_is_not_torch_is_refused(spotter):
    class Other:
        name = "openvino"
        streams = 2

        def run(self, images):
            return np.zeros((len(images), 3), np.float32)

    with pytest.raises(UsageError, match="not the engine openvino"):
        explain(Classifier(spotter.info, Other()), np.zeros((32, 32, 3), np.uint8))
