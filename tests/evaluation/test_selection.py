"""The threshold for "none of these" against trying every threshold."""

import numpy as np
import pytest

from taxonet.errors import UsageError
from taxonet.evaluation.calibration import folds_of
from taxonet.evaluation.selection import (
    area_under_risk,
    choose_threshold,
    fewest_answers,
    risk_coverage,
    select,
    targets_table,
)


@pytest.fixture(params=range(4))
def answers(request):
    """Confidences, with ties for odd seeds, that are right about as often as they say."""
    rng = np.random.default_rng(request.param)
    confidence = rng.beta(3, 1.5, 200).astype(np.float32)
    if request.param % 2:
        confidence = confidence.round(2)
    return confidence, rng.random(200) < confidence


def every_threshold(confidence, right):
    """(answered, right) for every set of answers that a threshold can give."""
    for value in sorted(set(confidence.tolist())):
        given = confidence >= value
        yield int(given.sum()), int((given & right).sum())


@pytest.mark.parametrize("wanted", [0.7, 0.8, 0.9])
def test_a_precision_is_reached_with_as_many_answers_as_it_allows(answers, wanted):
    confidence, right = answers
    choice = choose_threshold(confidence, right, target="precision", wanted=wanted)
    able = [n for n, hits in every_threshold(confidence, right) if hits >= wanted * n and n >= 1 / (1 - wanted)]
    if choice is None:
        assert not able
        return
    assert choice.chosen_on.answered == max(able)
    assert choice.chosen_on.precision >= wanted
    assert int((confidence >= choice.threshold).sum()) == choice.chosen_on.answered
    assert choice.threshold not in confidence  # no last digit decides


@pytest.mark.parametrize("wanted", [0.01, 0.5, 0.9, 1.0])
def test_a_coverage_is_reached_by_the_strictest_threshold(answers, wanted):
    confidence, right = answers
    choice = choose_threshold(confidence, right, target="coverage", wanted=wanted)
    assert choice.chosen_on.answered == min(n for n, _ in every_threshold(confidence, right) if n >= wanted * 200)
    if wanted == 1.0:
        assert choice.threshold == 0


def test_the_figures_of_a_threshold():
    found = select(np.array([0.9, 0.8, 0.8, 0.3]), np.array([True, False, True, True]), 0.8)
    assert (found.answered, found.right, found.coverage, found.precision) == (3, 2, 0.75, pytest.approx(2 / 3))
    assert found.precision_ci == pytest.approx((0.2077, 0.9385), abs=1e-4)  # Wilson's
    assert found.coverage_ci == pytest.approx((0.3006, 0.9544), abs=1e-4)
    nothing = select(np.array([0.5]), np.array([True]), 0.9)
    assert (nothing.coverage, nothing.precision, nothing.precision_ci) == (0, None, None)


def test_a_precision_that_everything_has_needs_no_threshold():
    choice = choose_threshold(np.linspace(0.4, 0.9, 40), np.ones(40, bool), target="precision", wanted=0.95)
    assert (choice.threshold, choice.chosen_on.coverage, choice.held_out.precision) == (0, 1, 1)


def test_a_precision_that_is_out_of_reach():
    confidence = np.linspace(0.99, 0.2, 60)
    assert choose_threshold(confidence, np.arange(60) % 2 == 1, target="precision", wanted=0.9) is None
    few = np.arange(60) < 5  # only the five surest are right: too few to tell 0.95 from 1
    assert choose_threshold(confidence, few, target="precision", wanted=0.95) is None
    assert [fewest_answers(p) for p in (0.95, 0.9, 0.99, 1.0, 0.5)] == [20, 10, 100, 1000, 2]


@pytest.mark.parametrize(("n", "reached"), [(2, False), (19, False), (20, True)])
def test_a_few_right_answers_do_not_tell_a_precision(n, reached):
    choice = choose_threshold(np.linspace(0.9, 0.4, n), np.ones(n, bool), target="precision", wanted=0.95)
    assert (choice is not None) == reached
    named = [
        row["wanted"]
        for row in targets_table(np.linspace(0.9, 0.4, n), np.ones(n, bool))
        if "precision" in row["target"]
    ]
    assert named == [wanted for wanted in (0.9, 0.95) if n >= {0.9: 10, 0.95: 20}[wanted]]


def test_the_held_out_figures_do_not_use_a_picture_s_own_answer(answers):
    confidence, right = answers
    choice = choose_threshold(confidence, right, target="coverage", wanted=0.5)
    places, answered, hits = folds_of(right.astype(int)), 0, 0
    for fold in range(5):
        others, own = places != fold, places == fold
        cut = choose_threshold(confidence[others], right[others], target="coverage", wanted=0.5).threshold
        answered += int((confidence[own] >= cut).sum())
        hits += int((right[own] & (confidence[own] >= cut)).sum())
    assert (choice.held_out.answered, choice.held_out.right) == (answered, hits)
    assert choice.as_dict()["held_out"]["answered"] == answered


def test_the_pictures_that_choose_a_threshold_flatter_it():
    gains = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        confidence, right = rng.random(200), rng.random(200) < 0.8  # confidence says nothing: any gain is chance
        choice = choose_threshold(confidence, right, target="precision", wanted=0.84)
        if choice and choice.held_out and choice.held_out.precision is not None:
            gains.append(choice.chosen_on.precision - choice.held_out.precision)
    assert len(gains) > 10
    assert np.mean(gains) > 0.01


@pytest.mark.parametrize("wanted", [0.0, -0.1, 1.2, float("nan")])
def test_targets_that_are_no_shares(wanted):
    with pytest.raises(UsageError, match=r"target_coverage is .*, it must be above 0 and at most 1"):
        choose_threshold(np.array([0.5]), np.array([True]), target="coverage", wanted=wanted)


def test_risk_against_coverage_by_a_slow_formula(answers):
    confidence, right = answers
    slow = sorted((n / 200, 1 - hits / n) for n, hits in every_threshold(confidence, right))
    np.testing.assert_allclose(risk_coverage(confidence, right), slow)


def test_the_area_under_risk_by_hand():
    right = np.array([True, True, False, True])
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    assert area_under_risk(confidence, right) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert area_under_risk(np.full(4, 0.5), right) == pytest.approx(0.25)  # all tied: the plain error everywhere


def test_the_table_leaves_out_what_cannot_be_reached():
    table = targets_table(np.linspace(0.9, 0.2, 60), np.arange(60) % 2 == 1)
    assert {row["target"] for row in table} == {"coverage"}
