"""Corruptions are deterministic and grow with severity; the check counts what a slow loop counts."""

import json

import numpy as np
import pytest
from PIL import Image

from taxonet import evaluate
from taxonet.data import Sample, read_data
from taxonet.errors import DataError, UsageError
from taxonet.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from taxonet.evaluation.robustness import (
    check_robustness,
    conditions,
    corrupted,
    stratified_order,
    working_copy,
)
from taxonet.images import DEFAULT_LIMITS, Preprocessing
from taxonet.images.decode import decode_picture
from taxonet.images.geometry import Geometry
from taxonet.images.preprocessing import to_array


@pytest.fixture(scope="module")
def photo():
    """A smooth picture with edges, 240×200."""
    rows, columns = np.mgrid[0:200, 0:240]
    pixels = np.stack([columns, 255 - rows, 128 + 60 * ((rows // 8 + columns // 8) % 2)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def distance(one, other):
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_corruption_keeps_the_form_is_repeatable_and_grows(corruption, mode, photo):
    image = photo.convert(mode)
    before = image.copy()
    found = [corruption.apply(image, severity, (1, severity)) for severity in SEVERITIES]
    assert {(picture.size, picture.mode) for picture in found} == {(image.size, mode)}
    assert np.array_equal(image, before)
    distances = [distance(image, picture) for picture in found]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert np.array_equal(found[1], corruption.apply(image, 2, (1, 2)))


def named(name):
    return next(corruption for corruption in CORRUPTIONS if corruption.name == name)


def test_noise_has_the_strength_it_says_and_differs_between_pictures():
    grey = Image.new("RGB", (80, 80), (128, 128, 128))
    noisy = named("noise").apply(grey, 1, (0,))
    assert np.asarray(noisy, float).std() == pytest.approx(0.08 * 255, rel=0.03)
    assert distance(noisy, named("noise").apply(grey, 1, (1,))) > 5


def test_light_and_contrast_by_hand():
    image = Image.fromarray(np.array([[[100, 200, 0], [50, 100, 0]]], np.uint8))
    assert np.asarray(named("darker").apply(image, 1, (0,))).tolist() == [[[60, 120, 0], [30, 60, 0]]]
    assert np.asarray(named("brighter").apply(image, 2, (0,))).tolist() == [[[190, 255, 0], [95, 190, 0]]]
    assert np.asarray(named("contrast").apply(image, 1, (0,))).tolist() == [[[85, 170, 0], [65, 130, 0]]]


def test_rotation_turns_about_the_centre_to_either_side_without_black_corners(photo):
    white = Image.new("L", (60, 40), 255)
    white.putpixel((50, 20), 0)
    sides = {int(np.asarray(named("rotation").apply(white, 3, (s,))).argmin() // 60 > 20) for s in range(12)}
    assert sides == {0, 1}
    plain = Image.new("RGB", (50, 70), (200, 10, 30))
    assert np.array_equal(named("rotation").apply(plain, 3, (0,)), plain)


@pytest.mark.parametrize(
    "text",
    [
        "exif | rgb | resize(40) | center_crop(32) | normalize(half)",
        "rgb | resize(90, bilinear) | center_crop(80) | normalize(half)",
        "grey | center_crop(30) | normalize(half)",
    ],
)
@pytest.mark.parametrize("size", [(33, 301), (301, 33), (1300, 1001), (41, 41)])
def test_a_photo_that_is_not_corrupted_is_prepared_step_by_step_to_the_bit(text, size, tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(path)
    preprocessing = Preprocessing.parse(text)
    mode = "RGB" if preprocessing.channels == 3 else "L"
    picture = decode_picture(
        path, exif=preprocessing.turns_upright, mode=mode, short_side=preprocessing.short_side, limits=DEFAULT_LIMITS
    )
    for step in preprocessing.steps:
        picture = step.apply(picture) if isinstance(step, Geometry) else picture
    assert np.array_equal(preprocessing.pixels(working_copy(path, preprocessing)), to_array(picture.image))


def test_before_a_squash_a_large_photo_is_reduced(tmp_path, paint):
    path = paint(tmp_path / "a.png", size=(600, 900))
    image = working_copy(path, Preprocessing.parse("rgb | squash(48, 64) | normalize(half)"))
    assert image.size == (96, 64)


def test_every_beginning_of_the_order_is_as_even_as_it_can_be():
    labels = ["a"] * 20 + ["b"] * 5 + ["c"] * 9
    order = stratified_order(labels)
    assert sorted(order) == list(range(34))
    assert order == stratified_order(labels)
    for n in range(1, 35):
        taken = [labels[i] for i in order[:n]]
        counts = {label: taken.count(label) for label in "abc"}
        for label, whole in (("a", 20), ("b", 5), ("c", 9)):
            assert counts[label] == whole or counts[label] >= max(counts.values()) - 1


def slow(classifier, samples):
    """Rows of right or wrong: one picture after the other, one condition after the other."""
    rows = []
    for sample in samples:
        image = working_copy(sample.path, classifier.preprocessing)
        pictures = [image, *corrupted(image, sample.path.name)]
        rows.append([classifier.predict(picture)[0].label == sample.label for picture in pictures])
    return np.array(rows)


def test_the_check_counts_what_a_slow_loop_counts(colour_classifier, fill, paint, tmp_path):
    fill(tmp_path, red=3, green=3, blue=2)
    paint(tmp_path / "red" / "wrong.png", "blue")
    samples = read_data(tmp_path).samples
    found = check_robustness(colour_classifier, samples, pictures=100)
    table = slow(colour_classifier, samples)
    assert (found.n, found.of, found.sampling) == (9, 9, "all 9 pictures")
    assert found.clean == table[:, 0].mean() == 8 / 9
    assert [(s.corruption, s.severity) for s in found.scores] == [(c.name, s) for c, s in conditions()]
    np.testing.assert_allclose([score.top1 for score in found.scores], table[:, 1:].mean(axis=0))
    assert found.mean_corruption_accuracy == pytest.approx(table[:, 1:].mean())
    low, high = found.mean_corruption_accuracy_ci
    assert low < found.mean_corruption_accuracy < high
    assert found.example.path.name != "wrong.png"


def test_a_part_of_the_pictures_is_taken_evenly_and_said(colour_classifier, fill, tmp_path):
    samples = read_data(fill(tmp_path, red=6, green=4, blue=2)).samples
    found = check_robustness(colour_classifier, samples, pictures=5)
    assert (found.n, found.of) == (5, 12)
    assert found.sampling == "5 of 12 pictures, 1 to 2 a class, drawn with a fixed seed"
    again = check_robustness(colour_classifier, samples, pictures=5)
    assert found.scores == again.scores
    # by the clock: a budget that has run out still takes the least that tells something
    assert check_robustness(colour_classifier, samples, seconds=0).n == 12


def test_what_cannot_be_checked(colour_classifier, broken_jpeg):
    with pytest.raises(UsageError, match="robustness_pictures is 0, it must be at least 1"):
        check_robustness(colour_classifier, [Sample(broken_jpeg, "red")], pictures=0)
    with pytest.raises(DataError, match="not one of the pictures can be read"):
        check_robustness(colour_classifier, [Sample(broken_jpeg, "red")])


def test_evaluate_has_it_as_an_option(colour_classifier, fill, tmp_path):
    found = evaluate(colour_classifier, fill(tmp_path, red=2, blue=2), robustness_pictures=2)
    fields = json.loads(json.dumps(found.as_dict()))["robustness"]
    assert (fields["n"], len(fields["scores"])) == (2, len(CORRUPTIONS) * len(SEVERITIES))
    assert set(fields["scores"][0]) == {"corruption", "severity", "strength", "top1", "top1_ci"}
    assert evaluate(colour_classifier, tmp_path).robustness is None
