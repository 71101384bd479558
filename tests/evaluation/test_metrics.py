"""The figures against scikit-learn and against what can be worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as reference

from taxonet.evaluation import measure
from taxonet.evaluation.metrics import intervals
from taxonet.evaluation.reliability import (
    adaptive_calibration_error,
    equal_mass,
    equal_width,
    expected_calibration_error,
)
from taxonet.intervals import wilson

CLASSES = tuple("abcdefgh")


@pytest.fixture(scope="module", params=range(3))
def case(request):
    """Random probabilities of 8 classes, of which the last never occurs, and targets that they half know."""
    rng = np.random.default_rng(request.param)
    targets = rng.integers(0, 7, 200)
    logits = rng.normal(size=(200, 8)) + 1.5 * np.eye(8)[targets] - 3 * np.eye(8)[7]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, targets, measure(probabilities, targets, CLASSES)


def test_top_k(case):
    probabilities, targets, found = case
    labels = np.arange(8)
    assert found.n == 200
    assert found.top1 == pytest.approx(reference.top_k_accuracy_score(targets, probabilities, k=1, labels=labels))
    assert found.top5 == pytest.approx(reference.top_k_accuracy_score(targets, probabilities, k=5, labels=labels))
    assert found.top1 < found.top5 < 1


def test_losses_and_counts(case):
    probabilities, targets, found = case
    answers = probabilities.argmax(axis=1)
    assert found.log_loss == pytest.approx(reference.log_loss(targets, probabilities, labels=np.arange(8)))
    assert np.array_equal(found.confusion, reference.confusion_matrix(targets, answers, labels=np.arange(8)))
    assert found.balanced_accuracy == pytest.approx(np.mean([s.recall for s in found.per_class if s.n]))


def test_per_class(case):
    probabilities, targets, found = case
    precision, recall, f1, n = reference.precision_recall_fscore_support(
        targets, probabilities.argmax(axis=1), labels=np.arange(8), zero_division=np.nan
    )
    assert [score.label for score in found.per_class] == list(CLASSES)
    assert [score.n for score in found.per_class] == n.tolist()
    for i, score in enumerate(found.per_class):
        expected = [None if math.isnan(v) else pytest.approx(v) for v in (precision[i], recall[i])]
        assert [score.precision, score.recall] == expected
        if score.f1 is not None and not math.isnan(f1[i]):
            assert score.f1 == pytest.approx(f1[i])


def one_hot(answers, classes, sure=0.9):
    table = np.full((len(answers), classes), (1 - sure) / (classes - 1))
    table[np.arange(len(answers)), answers] = sure
    return table


def test_a_class_without_samples_has_no_figures_rather_than_nan():
    found = measure(one_hot([0, 0, 2, 1], 4), [0, 0, 0, 1], "wxyz")
    w, x, y, z = found.per_class
    assert (w.n, w.recall, w.precision) == (3, pytest.approx(2 / 3), 1.0)
    assert (x.n, x.recall, x.precision, x.f1) == (1, 1.0, 1.0, 1.0)
    assert (y.n, y.recall, y.precision, y.f1) == (0, None, 0.0, 0.0)  # answered once, wrongly
    assert (z.n, z.recall, z.precision, z.f1) == (0, None, None, None)
    assert found.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert found.confusion == ((2, 0, 1, 0), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Wilson's interval; Brown, Cai, DasGupta 2001, and the formula by hand
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, Table I
        (15, 148, 0.0624, 0.1605),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilson_s(right, n, low, high):
    targets = [0] * right + [1] * (n - right)
    found = measure(one_hot([0] * n, 2), targets, ("a", "b"))
    assert found.top1 == pytest.approx(right / n)
    assert found.top1_ci == pytest.approx((low, high), abs=5e-5)


def test_top5_counts_the_fifth_and_not_the_sixth():
    probabilities = np.tile(np.array([0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05]), (2, 1))
    assert measure(probabilities, [4, 5], "abcdefg").top5 == 0.5
    assert measure(probabilities[:, :3], [2, 1], "abc").top5 == 1.0


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.55, 0.55])
    right = np.array([True, True, True, False, True, True])
    # two bins: four samples, |0.75 − 0.95| = 0.2; two samples, |1 − 0.55| = 0.45
    assert expected_calibration_error(confidence, right) == pytest.approx(4 / 6 * 0.2 + 2 / 6 * 0.45)
    assert expected_calibration_error(np.ones(3), np.array([True] * 3)) == 0
    assert expected_calibration_error(np.ones(3), np.array([False] * 3)) == 1


def test_certainty_that_is_wrong_has_a_finite_loss():
    assert measure(np.array([[1.0, 0.0]]), [1], ("a", "b")).log_loss == pytest.approx(-math.log(1e-12))


def test_averages_over_classes(case):
    probabilities, targets, found = case
    answers = probabilities.argmax(axis=1)
    for average, precision, f1 in (
        ("macro", found.macro_precision, found.macro_f1),
        ("weighted", None, found.weighted_f1),
    ):
        expected = reference.precision_recall_fscore_support(targets, answers, average=average, zero_division=0)
        assert f1 == pytest.approx(expected[2])
        assert precision is None or precision == pytest.approx(expected[0])
    assert found.balanced_accuracy == pytest.approx(reference.balanced_accuracy_score(targets, answers))


def test_a_class_that_is_only_answered_lowers_the_macro_averages_as_in_scikit_learn():
    answers, targets = [0, 0, 2, 1], [0, 0, 0, 1]
    found = measure(one_hot(answers, 4), targets, "wxyz")
    assert found.macro_f1 == pytest.approx(reference.f1_score(targets, answers, average="macro"))
    assert found.macro_f1 == pytest.approx((0.8 + 1 + 0) / 3)  # the class that is nowhere does not count


def test_brier_score(case):
    probabilities, targets, found = case
    expected = reference.brier_score_loss(targets, probabilities, labels=np.arange(8), scale_by_half=False)
    assert found.brier == pytest.approx(expected)
    assert measure(np.array([[0.0, 1.0]]), [0], "ab").brier == 2


def test_every_share_has_wilson_s_interval(case):
    found = case[2]

    def expected(hits, n):
        low, high = stats.binomtest(hits, n).proportion_ci(0.95, method="wilson")
        return pytest.approx((low, high), abs=1e-12)

    confusion = np.array(found.confusion)
    assert found.top5_ci == expected(round(found.top5 * 200), 200)
    for i, score in enumerate(found.per_class):
        if score.n:
            assert score.recall_ci == expected(int(confusion[i, i]), score.n)
        if confusion[:, i].sum():
            assert score.precision_ci == expected(int(confusion[i, i]), int(confusion[:, i].sum()))
    assert (found.per_class[7].recall_ci, wilson(0, 0)) == (None, None)


def test_bootstrap_intervals_agree_with_scipy_s(case):
    probabilities, targets, found = case
    ours = intervals(probabilities, targets)
    losses = -np.log(probabilities[np.arange(200), targets])
    theirs = stats.bootstrap((losses,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    spread = theirs.high - theirs.low
    assert ours["log_loss"] == pytest.approx((theirs.low, theirs.high), abs=0.1 * spread)
    for name, pair in ours.items():
        assert pair[0] < getattr(found, name) < pair[1]
    assert intervals(probabilities, targets) == ours  # the same pictures, the same interval


def test_bootstrap_of_an_average_over_classes_by_a_slow_formula(case):
    probabilities, targets, _ = case
    answers, rng = probabilities.argmax(axis=1), np.random.default_rng(5)
    drawn = []
    for _ in range(1000):
        places = rng.integers(0, 200, 200)
        drawn.append(reference.f1_score(targets[places], answers[places], average="macro", zero_division=0))
    assert intervals(probabilities, targets)["macro_f1"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)


def test_pictures_that_are_all_right_have_no_bootstrap_interval():
    found = intervals(one_hot([0, 1, 0, 1], 2), [0, 1, 0, 1])
    assert found["macro_f1"] is None  # 1.0 to 1.0 would claim certainty
    assert found["balanced_accuracy"] is None


def test_bins_by_a_slow_formula():
    rng = np.random.default_rng(0)
    confidence = np.append(rng.random(83), [0.0, 1.0, 1 / 15])
    right = rng.random(86) < confidence
    expected = 0.0
    for k in range(15):
        inside = [i for i, c in enumerate(confidence) if k / 15 <= c < (k + 1) / 15 or (k == 14 and c == 1)]
        if inside:
            expected += len(inside) / 86 * abs(np.mean(right[inside]) - np.mean(confidence[inside]))
    assert expected_calibration_error(confidence, right) == pytest.approx(expected)
    assert sum(part.n for part in equal_width(confidence, right)) == 86

    order = sorted(range(86), key=lambda i: confidence[i])
    parts = [order[i : i + 6] for i in range(0, 66, 6)] + [order[i : i + 5] for i in range(66, 86, 5)]
    assert [part.n for part in equal_mass(confidence, right)] == list(map(len, parts))
    slow = sum(len(p) / 86 * abs(np.mean(right[p]) - np.mean(confidence[p])) for p in parts)
    assert adaptive_calibration_error(confidence, right) == pytest.approx(slow)
    assert adaptive_calibration_error(np.array([0.7]), np.array([True])) == pytest.approx(0.3)
