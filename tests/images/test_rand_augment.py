"""RandAugment: the paper's operations and ranges, and that N and M mean what the paper says."""

import numpy as np
import pytest
from PIL import Image

from taxonet.errors import UsageError
from taxonet.images import Augmentation
from taxonet.images.rand_augment import IMAGE_OPERATIONS, RANGES, rand_augment

# AutoAugment's Table 6 (arXiv 1805.09501): the strength at the end of the range, and half way to it
HALF_AND_END = {
    "rotate": (15, 30),
    "solarize": (128, 0),
    "posterize": (6, 4),
    "color": (0.45, 0.9),
    "contrast": (0.45, 0.9),
    "brightness": (0.45, 0.9),
    "sharpness": (0.45, 0.9),
    "shear_x": (0.15, 0.3),
    "shear_y": (0.15, 0.3),
    "translate_x": (75 / 331, 150 / 331),
    "translate_y": (75 / 331, 150 / 331),
}


def picture(width=40, height=30, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def test_the_fourteen_operations_and_their_ranges():
    assert len(RANGES) == 14
    for name, (half, end) in HALF_AND_END.items():
        assert RANGES[name].at(5) == pytest.approx(half)
        assert RANGES[name].at(10) == pytest.approx(end)
    assert RANGES["rotate"].at(28) == pytest.approx(84)  # the line goes on
    assert (RANGES["solarize"].at(28), RANGES["posterize"].at(28)) == (0, 1)  # and stops where nothing is left
    assert set(RANGES) - set(HALF_AND_END) == {"identity", "autocontrast", "equalize"}


def record_draws(monkeypatch, count, magnitude, times):
    drawn = []
    for name, operation in IMAGE_OPERATIONS.items():
        changed = type(operation)(lambda image, m, name=name: drawn.append((name, m)) or image)
        monkeypatch.setitem(IMAGE_OPERATIONS, name, changed)
    rng = np.random.default_rng(0)
    for _ in range(times):
        rand_augment(picture(400, 200), count, magnitude, rng)
    return drawn


def test_every_operation_is_drawn_evenly_with_one_strength_and_both_signs(monkeypatch):
    drawn = record_draws(monkeypatch, 2, 9, 4000)
    assert len(drawn) == 8000
    counts = {name: sum(n == name for n, _ in drawn) for name in RANGES}
    assert all(abs(c - 8000 / 14) < 4 * (8000 / 14) ** 0.5 for c in counts.values()), counts
    strengths = {name: sorted({m for n, m in drawn if n == name}) for name in RANGES}
    assert strengths["rotate"] == pytest.approx([-27, 27])
    assert strengths["translate_x"] == pytest.approx([-400 * 135 / 331, 400 * 135 / 331])
    assert strengths["translate_y"] == pytest.approx([-200 * 135 / 331, 200 * 135 / 331])
    assert strengths["posterize"] == pytest.approx([4.4])


def test_it_is_a_step_of_the_notation():
    augmentation = Augmentation.parse("rand_augment(2, 9)")
    assert str(augmentation) == "rand_augment(2, 9.0)"
    assert Augmentation.parse(str(augmentation)) == augmentation
    for text, sentence in (
        ("rand_augment(0, 9)", "the count must be a whole number from 1 to 16"),
        ("rand_augment(2, 31)", "the magnitude must be a number from 0.0 to 30.0"),
        ("rand_augment(2)", "rand_augment needs its magnitude"),
        ("randaugment(2, 9)", "did you mean 'rand_augment'"),
    ):
        with pytest.raises(UsageError, match=sentence):
            Augmentation.parse(text)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("magnitude", [0, 9, 30])
def test_pictures_stay_pictures_and_depend_on_the_generator_alone(mode, magnitude):
    augmentation = Augmentation.parse(f"rand_augment(3, {magnitude})")
    seen = set()
    for seed in range(40):
        first, again = (augmentation(picture(mode=mode), np.random.default_rng(seed)) for _ in range(2))
        assert first.shape == (30, 40, 3 if mode == "RGB" else 1)
        assert np.array_equal(first, again)
        seen.add(first.tobytes())
    assert len(seen) > (1 if magnitude == 0 else 20)  # at 0 only autocontrast and equalize act


def test_a_solarized_picture_by_hand(monkeypatch):
    monkeypatch.setattr("taxonet.images.rand_augment._NAMES", ("solarize",))
    pixels = np.asarray(picture())
    out = np.asarray(rand_augment(picture(), 1, 5, np.random.default_rng(0)))
    assert np.array_equal(out, np.where(pixels >= 128, 255 - pixels, pixels))


def test_an_augmentation_scaled_shows_the_same_part():
    """Same draws, other size: the picture at half the size is the large one made smaller."""
    large = Augmentation.parse("random_resized_crop(64, scale=(0.3, 0.6)) | flip")
    y, x = np.mgrid[:200, :240]
    smooth = Image.fromarray(np.dstack([y, x, (x + y) / 2]).astype(np.uint8))
    for seed in range(5):
        first = large(smooth, np.random.default_rng(seed))
        second = large.scaled(0.5)(smooth, np.random.default_rng(seed))
        shrunk = np.asarray(Image.fromarray(first).resize((32, 32), Image.Resampling.BOX))
        assert second.shape == (32, 32, 3)
        assert np.abs(shrunk.astype(int) - second).mean() < 2
    scaled = Augmentation.parse("resize(32) | random_crop(32, padding=4) | center_crop(30) | erase(0.1)").scaled(2)
    assert str(scaled).startswith("resize(64, bicubic) | random_crop(64, padding=8) | center_crop(60")
