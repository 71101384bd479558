"""What was lost, and how sure that is."""

import numpy as np
import pytest
from scipy.special import log_softmax

from taxonet.inference.int8.figures import compare, logit_error


def logits(answers, classes=3):
    return np.eye(classes, dtype=np.float32)[answers]


def test_lost_and_gained_photos_make_the_drop():
    targets = np.zeros(10, int)
    before, after = logits([0] * 8 + [1, 2]), logits([0] * 5 + [1] * 3 + [0, 2])
    drop = compare(before, after, targets, 1.0)
    assert (drop.lost, drop.gained, drop.n) == (3, 1, 10)
    assert drop.points == pytest.approx(20)
    assert (drop.before, drop.after, drop.agreement) == (0.8, 0.6, 0.6)
    assert drop.within(20)
    assert not drop.within(19.9)


def test_no_changed_answer_is_no_certainty():
    few, many = (compare(logits([0] * n), logits([0] * n), np.zeros(n, int), 1.0) for n in (10, 1000))
    assert few.points == many.points == 0
    assert few.points_ci[1] > 10
    assert 0 < many.points_ci[1] < 0.5


def test_the_interval_holds_the_true_drop_as_often_as_it_says():
    rng = np.random.default_rng(0)
    n, lost, gained = 100, 0.06, 0.03
    held = 0
    for _ in range(400):
        kind = rng.choice(4, n, p=[0.7, lost, gained, 1 - 0.7 - lost - gained])
        before, after = np.isin(kind, [0, 1]), np.isin(kind, [0, 2])
        drop = compare(logits(1 - before), logits(1 - after), np.zeros(n, int), 1.0)
        held += drop.points_ci[0] <= 100 * (lost - gained) <= drop.points_ci[1]
    assert 0.92 <= held / 400 <= 0.99


def test_the_log_loss_is_taken_at_the_bundles_temperature():
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    targets = np.arange(20) % 3
    drop = compare(values, values, targets, 2.0)
    assert drop.log_loss_before == pytest.approx(-log_softmax(values / 2, axis=1)[np.arange(20), targets].mean())


def test_a_number_added_to_all_logits_of_a_photo_is_no_error():
    values = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    assert logit_error(values, values + np.arange(20, dtype=np.float32)[:, None]) < 1e-5
    assert logit_error(values, 1.1 * values) == pytest.approx(0.1, rel=1e-4)
