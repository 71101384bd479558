"""Wrong labels: the paper's estimate on answers that can be worked out by hand; swapped labels are found."""

import numpy as np
import pytest

import taxonet
from taxonet.checking.labels import FOLDS, _folds, confident_joint, doubtful, out_of_fold
from taxonet.errors import UsageError


def test_the_confident_joint_by_hand():
    """Thresholds are the mean confidence of each class in itself: 0.6 for class 0, 0.7 for class 1."""
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.3, 0.7]])
    labels = np.array([0, 0, 0, 1, 1])
    assert np.allclose(confident_joint(probabilities, labels), [[2, 1], [0, 2]])
    assert doubtful(probabilities, labels) == [(2, 1)]


def test_the_joint_is_calibrated_to_the_counts_of_the_labels():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.4] * 5, 400)
    labels = rng.integers(0, 5, 400)
    joint = confident_joint(probabilities, labels)
    assert np.allclose(joint.sum(axis=1), np.bincount(labels, minlength=5))


def test_a_class_that_is_seldom_sure_is_not_doubted_for_that():
    """0.55 is as sure as class 1 ever gets: its threshold is its own, so its labels stand."""
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.array([[0.99, 0.01]] * 20 + [[0.45, 0.55]] * 20)
    assert doubtful(probabilities, labels) == []


def test_the_surest_doubt_comes_first():
    labels = np.array([0] * 30 + [1] * 30)
    probabilities = np.tile([0.9, 0.1], (60, 1))
    probabilities[30:] = [0.1, 0.9]
    probabilities[3], probabilities[7] = [0.08, 0.92], [0.02, 0.98]
    assert [i for i, _ in doubtful(probabilities, labels)] == [7, 3]


def blobs(seed=0, count=40, classes=3):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 3, (classes, 16))
    labels = np.repeat(np.arange(classes), count)
    return (centres[labels] + rng.normal(0, 1, (len(labels), 16))).astype(np.float32), labels


def test_swapped_labels_are_found_among_separable_classes():
    features, labels = blobs()
    swapped = [3, 17, 44, 61, 88, 110]
    given = labels.copy()
    given[swapped] = (labels[swapped] + 1) % 3
    probabilities = out_of_fold(features, given, np.arange(len(labels)), 0)
    found = doubtful(probabilities, given)
    assert {i for i, _ in found} == set(swapped)
    assert all(answer == labels[i] for i, answer in found)


def test_a_copy_never_vouches_for_its_own_label():
    """A wrong label on a photo and on its copy: apart from each other they would confirm it."""
    labels = np.repeat(np.arange(3), 40)
    families = np.arange(120)
    families[60:80] = families[0:20]  # copies across classes, too
    folds = _folds(labels, families, 0)
    assert all(len(set(folds[families == family])) == 1 for family in range(120) if (families == family).any())
    assert set(folds) == set(range(FOLDS))


def test_labels_of_real_pictures(fill, tmp_path, small_bundle):
    """Red pictures in the green folder, judged by a network that knows the colours."""
    data = fill(tmp_path, red=15, green=15, blue=15)
    for number in (3, 9):
        (data / "red" / f"{number}.png").rename(data / "green" / f"red{number}.png")
    report = taxonet.check(data, model=small_bundle)
    found = {issue.path: (issue.label, issue.answer) for issue in report.issues if issue.kind == "label"}
    assert found == {"green/red3.png": ("green", "red"), "green/red9.png": ("green", "red")}
    assert report.labels["checked"]
    assert report.labels["judged"] == 45
    again = taxonet.check(data, model=small_bundle)
    assert again.as_dict() == report.as_dict()


def test_too_few_pictures_are_not_judged_and_said_so(fill, tmp_path, small_bundle):
    report = taxonet.check(fill(tmp_path, red=4, blue=12), model=small_bundle)
    assert report.labels["checked"] is False
    assert "at least 5" in report.labels["why_not"]


def test_a_model_that_is_not_there(fill, tmp_path):
    with pytest.raises(UsageError, match="neither a file nor a network"):
        taxonet.check(fill(tmp_path, red=8, blue=8), model="efficientnet_lite9x")
