"""Paired tests against exact counting, published examples, and simulation."""

from itertools import product

import numpy as np
import pytest

from taxonet.evaluation.paired import Answers, PairedTest, bootstrap_means, compare_pairs, holm, mcnemar


@pytest.mark.parametrize(("b", "c"), [(0, 0), (0, 1), (1, 0), (3, 3), (1, 7), (9, 2), (0, 6)])
def test_mcnemar_counts_every_way_that_the_coins_could_fall(b, c):
    """Each photo that only one model got right is a fair coin if both are equally good."""
    total, fewer = b + c, min(b, c)
    heads = [sum(way) for way in product((0, 1), repeat=total)]
    as_extreme = [min(h, total - h) <= fewer for h in heads]
    equally = [min(h, total - h) == fewer for h in heads]
    exact, mid = mcnemar(b, c)
    assert exact == pytest.approx(np.mean(as_extreme))
    balanced = 2 * fewer == total
    assert mid == pytest.approx(1.0 if balanced else np.mean(as_extreme) - 0.5 * np.mean(equally))


def test_mcnemar_of_a_published_table():
    """Fagerland, Lydersen and Laake 2013 (airway hyper-responsiveness, 1 against 7 discordant pairs): exact
    p 0.070, mid-p 0.039."""
    exact, mid = mcnemar(1, 7)
    assert exact == pytest.approx(0.070, abs=5e-4)
    assert mid == pytest.approx(0.039, abs=5e-4)


def test_mid_p_keeps_its_level_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    flags = []
    for _ in range(2000):
        first, second = rng.random(80) < 0.85, rng.random(80) < 0.85
        flags.append(mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))[1] < 0.05)
    assert 0.025 < np.mean(flags) < 0.065


def test_the_bootstrap_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(150):
        first, second = rng.random(150) < 0.8, rng.random(150) < 0.7
        column = (first.astype(float) - second)[:, None]
        ((low, high),) = bootstrap_means(column, seed, resamples=500)
        held += low <= 0.1 <= high
    assert 134 <= held <= 149  # 142 is meant


@pytest.mark.parametrize("n", [100, 700])
def test_the_bootstrap_agrees_with_theory_and_is_repeatable(n):
    rng = np.random.default_rng(2)
    columns = rng.normal([0.0, 5.0], [1.0, 3.0], (n, 2))
    intervals = bootstrap_means(columns, seed=3)
    for (low, high), column in zip(intervals, columns.T, strict=True):
        error = 1.96 * column.std() / np.sqrt(n)
        assert low == pytest.approx(column.mean() - error, abs=0.1 * error)
        assert high == pytest.approx(column.mean() + error, abs=0.1 * error)
    assert bootstrap_means(columns, seed=3) == intervals


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.3]) == [0.3]


def answers(name, right, loss=None):
    right = np.array(right, bool)
    return Answers(name, right, np.where(right, 0.1, 2.0) if loss is None else loss)


def test_pairs_are_the_same_whichever_model_is_named_first():
    rng = np.random.default_rng(4)
    good, poor = answers("good", rng.random(200) < 0.9), answers("poor", rng.random(200) < 0.7)
    (one,), (other,) = compare_pairs([good, poor]), compare_pairs([poor, good])
    assert one == other
    assert (one.better, one.other) == ("good", "poor")
    assert one.only_better - one.only_other == round(200 * one.difference)
    assert one.difference_ci[0] < one.difference < one.difference_ci[1]
    assert one.log_loss_difference < 0
    assert one.significant
    assert one.sentence.startswith("good is better than poor by ")


def test_paired_is_sharper_than_two_intervals():
    """95 and 92 % right on 300 photos overlap as separate intervals; that B is right wherever A is settles it."""
    a, b = np.ones(300, bool), np.ones(300, bool)
    a[:24], b[:15] = False, False
    (pair,) = compare_pairs([answers("A", a), answers("B", b)])
    assert (pair.only_better, pair.only_other) == (9, 0)
    assert pair.significant
    assert pair.difference_ci[0] > 0


def test_sentences():
    def pair(**values):
        base = {"better": "B", "other": "A", "n": 108, "only_better": 9, "only_other": 1}
        base |= {"difference": 0.0213, "difference_ci": (0.0031, 0.0402), "p_exact": 0.02, "p_mid": 0.01, "p": 0.0213}
        base |= {"log_loss_difference": 0.0, "log_loss_difference_ci": (0.0, 0.0)}
        return PairedTest(**{**base, **values}).sentence

    assert pair() == "B is better than A by 2.1 points (0.3 to 4.0), p = 0.021"
    unsure = pair(p=0.63, difference=0.009, difference_ci=(-0.018, 0.037))
    assert unsure == "108 photos cannot tell B from A: difference 0.9 points (−1.8 to 3.7), p = 0.63"
    assert pair(p=1e-7).endswith("p < 0.001")
    same = pair(only_better=0, only_other=0, difference=0.0, p=1.0)
    assert same == "B and A are right and wrong on the same of 108 photos"


def test_many_pairs_are_corrected():
    rng = np.random.default_rng(5)
    models = [answers(f"m{i}", rng.random(100) < 0.8) for i in range(5)]
    pairs = compare_pairs(models)
    assert len(pairs) == 10
    assert all(pair.p >= pair.p_mid for pair in pairs)
    assert [pair.p for pair in pairs] == pytest.approx(holm([pair.p_mid for pair in pairs]))


def test_the_last_bits_of_a_loss_do_not_decide_who_comes_first():
    right = np.array([True, False, True])
    first, second = (Answers(name, right, np.full(3, loss)) for name, loss in (("first", 0.5 + 1e-9), ("second", 0.5)))
    (pair,) = compare_pairs([first, second])
    assert (pair.better, pair.other) == ("first", "second")
