"""Test-time augmentation: what each view shows, and that the answer is the mean over them."""

import numpy as np
import pytest
from PIL import Image

from taxonet import evaluate
from taxonet.errors import ImageError, UsageError
from taxonet.evaluation.views import Views
from taxonet.images import Preprocessing

PLAIN = Preprocessing.parse("exif | rgb | resize(24) | center_crop(16) | normalize(half)")


@pytest.fixture
def ramp():
    """A picture that the resize leaves alone: red is the column, green the row."""
    rows, columns = np.mgrid[0:24, 0:32]
    return np.stack([columns * 7, rows * 7, np.zeros_like(rows)], axis=-1).astype(np.uint8)


def corner(pixels):
    """The column and row that the upper left pixel comes from."""
    return pixels[0, 0, 0] // 7, pixels[0, 0, 1] // 7


def test_the_first_view_is_the_plain_one(ramp):
    for text in ("flip", "crops", "scales", "flip,crops,scales"):
        assert np.array_equal(Views.parse(text, PLAIN).pixels(ramp)[0], PLAIN.pixels(ramp))


def test_flip_is_the_mirror_image(ramp):
    plain, mirrored = Views.parse("flip", PLAIN).pixels(ramp)
    assert np.array_equal(mirrored, plain[:, ::-1])


def test_crops_are_the_middle_and_the_corners(ramp):
    assert [corner(p) for p in Views.parse("crops", PLAIN).pixels(ramp)] == [(8, 4), (0, 0), (16, 0), (0, 8), (16, 8)]


def test_scales_enlarge_before_the_crop(ramp):
    found = Views.parse("scales", PLAIN).pixels(ramp)
    for pixels, size in zip(found, (24, 27, 30), strict=True):
        own = Preprocessing.parse(f"exif | rgb | resize({size}) | center_crop(16) | normalize(half)")
        assert np.array_equal(pixels, own.pixels(ramp))


@pytest.mark.parametrize(
    ("text", "views"), [("flip", 2), ("crops", 5), ("scales", 3), ("crops, flip", 10), ("flip,crops,scales", 30)]
)
def test_several_multiply(text, views, ramp):
    found = Views.parse(text, PLAIN)
    assert len(found) == views
    assert found.pixels(ramp).shape == (views, 16, 16, 3)


def test_a_picture_smaller_than_the_crop_is_centred_in_every_view():
    small = Preprocessing.parse("rgb | resize(10) | center_crop(16) | normalize(half)")
    found = Views.parse("crops", small).pixels(np.full((10, 10, 3), 200, np.uint8))
    assert all(np.array_equal(view, found[0]) for view in found)


def test_what_cannot_be_parsed():
    with pytest.raises(UsageError, match=r"there is no view 'flp', it must be .*; did you mean 'flip'\?"):
        Views.parse("crops,flp", PLAIN)
    whole = Preprocessing.parse("rgb | squash(16, 16) | normalize(half)")
    assert len(Views.parse("flip", whole)) == 2
    with pytest.raises(UsageError, match="crops and scales need a preprocessing that resizes and then crops"):
        Views.parse("crops", whole)


def test_a_broken_picture_is_an_error_of_its_own(broken_jpeg):
    with pytest.raises(ImageError, match="truncated"):
        Views.parse("crops,scales", PLAIN).pixels(broken_jpeg)


def test_the_answer_is_the_mean_of_the_views_probabilities(colour_classifier, fill, tmp_path, broken_jpeg):
    fill(tmp_path, red=5, green=4, blue=3)
    (tmp_path / "red" / "broken.jpg").write_bytes(broken_jpeg.read_bytes())
    found = evaluate(colour_classifier, tmp_path, tta="flip")
    paths = [outcome.sample.path for outcome in found.outcomes]
    plain = colour_classifier.predict_proba(paths).astype(np.float64)
    mirrored = [Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for path in paths]
    both = (plain + colour_classifier.predict_proba(mirrored)) / 2
    np.testing.assert_allclose(found.scores.probabilities, both, atol=1e-5)
    assert (found.augmented.passes, found.augmented.views) == (2, "flip")
    without = evaluate(colour_classifier, tmp_path)
    assert found.augmented.plain_top1 == without.metrics.top1
    assert found.augmented.plain_log_loss == pytest.approx(without.metrics.log_loss, abs=1e-5)
    assert found.augmented.top1_change == pytest.approx(found.metrics.top1 - without.metrics.top1)
    assert [finding.path for finding in found.findings] == [str(tmp_path / "red" / "broken.jpg")]


def test_without_views_nothing_is_averaged(colour_classifier, fill, tmp_path):
    found = evaluate(colour_classifier, fill(tmp_path, red=2, blue=2))
    assert found.augmented is None
    paths = [outcome.sample.path for outcome in found.outcomes]
    assert np.array_equal(found.scores.probabilities, colour_classifier.predict_proba(paths))
