"""Temperature scaling against scipy's minimisation, and honest figures of what it is worth."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.metrics import log_loss

from taxonet.evaluation.calibration import cross_fitted, fit_calibration, fit_temperature, folds_of, softened


def sampled(n=400, classes=5, temperature=2.0, seed=0):
    """Logits whose calibrated form has `temperature`: targets are drawn from the softmax of logits / temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, (n, classes))
    probabilities = softened(logits, temperature)
    return logits.astype(np.float32), np.array([rng.choice(classes, p=row) for row in probabilities])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_is_where_scipy_finds_the_least_log_loss(seed, temperature):
    logits, targets = sampled(temperature=temperature, seed=seed)
    found = fit_temperature(logits, targets)
    assert found.reason is None

    def loss(value):
        return log_loss(targets, softened(logits, value), labels=range(5))

    least = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9})
    assert found.value == pytest.approx(least.x, rel=1e-4)
    assert loss(found.value) <= least.fun + 1e-12
    assert found.value == pytest.approx(temperature, rel=0.25)


def test_louder_logits_have_a_higher_temperature_and_the_same_probabilities():
    logits, targets = sampled()
    plain, loud = fit_temperature(logits, targets).value, fit_temperature(3 * logits.astype(float), targets).value
    assert loud == pytest.approx(3 * plain, rel=1e-9)
    np.testing.assert_allclose(softened(3 * logits.astype(float), loud), softened(logits, plain), atol=1e-12)


def test_softened_takes_one_temperature_or_one_a_row():
    logits, _ = sampled(n=4)
    each = softened(logits, np.array([1.0, 2.0, 1.0, 2.0]))
    np.testing.assert_array_equal(each[[0, 2]], softened(logits, 1.0)[[0, 2]])
    np.testing.assert_array_equal(each[[1, 3]], softened(logits, 2.0)[[1, 3]])
    assert np.isfinite(softened(np.array([[1e4, -1e4]]), 0.05)).all()


@pytest.mark.parametrize(
    ("logits", "targets", "reason"),
    [
        ([[5.0, 0.0], [0.0, 5.0]], [0, 1], "all 2 answers are right or nearly so"),
        ([[5.0, 0.0], [0.0, 5.0]], [1, 0], "no better than chance"),
        ([[1.0, 1.0], [2.0, 2.0]], [0, 1], "no better than chance"),
        ([[3.0], [4.0]], [0, 0], "no better than chance"),  # one class
    ],
)
def test_where_no_temperature_fits_it_stays_1_with_a_reason(logits, targets, reason):
    found = fit_temperature(np.array(logits), np.array(targets))
    assert found.value == 1.0
    assert reason in found.reason


def test_folds_spread_every_class_evenly_and_are_always_the_same():
    targets = np.repeat([2, 0, 1], [10, 25, 5])
    places = folds_of(targets)
    assert np.array_equal(places, folds_of(targets))
    for label, each in ((2, 2), (0, 5), (1, 1)):
        assert np.bincount(places[targets == label]).tolist() == [each] * 5
    assert sorted(folds_of(np.array([0, 0, 0]))) == [0, 1, 2]


def test_each_fold_has_the_temperature_of_the_others():
    logits, targets = sampled(n=100)
    temperatures, places = cross_fitted(logits, targets), folds_of(targets)
    for fold in range(5):
        expected = fit_temperature(logits[places != fold], targets[places != fold]).value
        assert set(temperatures[places == fold]) == {expected}
    assert cross_fitted(logits[:1], targets[:1]).tolist() == [1.0]


def test_calibration_of_an_overconfident_network_is_worth_something_on_pictures_it_was_not_fitted_on():
    logits, targets = sampled(n=600, temperature=3.0)
    found = fit_calibration(logits, targets)
    assert found.temperature == pytest.approx(3.0, rel=0.2)
    assert found.after["log_loss"] < found.before["log_loss"]
    assert found.after["ece"] < 0.5 * found.before["ece"]
    assert found.log_loss_change_ci[1] < 0
    assert found.before["log_loss"] == pytest.approx(log_loss(targets, softened(logits, 1), labels=range(5)))
    apart = softened(logits, cross_fitted(logits, targets))
    assert found.after["log_loss"] == pytest.approx(log_loss(targets, apart, labels=range(5)))
    fitted_on_all = log_loss(targets, softened(logits, found.temperature), labels=range(5))
    assert found.after["log_loss"] > fitted_on_all  # the figure that would flatter


@pytest.mark.parametrize("seed", range(12))
def test_a_temperature_is_kept_only_if_it_helps_pictures_it_was_not_fitted_on(seed):
    logits, targets = sampled(n=60, temperature=1.0, seed=seed)  # calibrated already: what is fitted is chance
    found, best = fit_calibration(logits, targets), fit_temperature(logits, targets).value
    apart = log_loss(targets, softened(logits, cross_fitted(logits, targets)), labels=range(5))
    assert (found.temperature == 1.0) == (apart >= found.before["log_loss"])
    assert found.after["log_loss"] == pytest.approx(min(apart, found.before["log_loss"]))
    if found.temperature == 1.0:
        assert f"{best:.4f} fits these 60 pictures" in found.reason
        assert f"{found.before['log_loss']:.4f} → {apart:.4f}" in found.reason
        assert found.after == found.before
        assert found.log_loss_change_ci is None
        assert set(found.held_out) == {1.0}
    else:
        assert (found.temperature, found.reason) == (best, None)


def test_both_happen_to_calibrated_networks():
    kept = [fit_calibration(*sampled(n=60, temperature=1.0, seed=seed)).temperature != 1 for seed in range(12)]
    assert 0 < sum(kept) < 12


@pytest.mark.parametrize("seed", range(6))
def test_a_bundle_keeps_the_temperature_that_it_has_where_a_new_one_does_not_help(seed):
    logits, targets = sampled(n=60, temperature=2.0, seed=seed)
    found = fit_calibration(logits, targets, current=2.0)  # right already
    apart = log_loss(targets, softened(logits, cross_fitted(logits, targets)), labels=range(5))
    right = log_loss(targets, softened(logits, 2.0), labels=range(5))
    assert (found.temperature == 2.0) == (apart >= right)
    assert found.after["log_loss"] == pytest.approx(min(apart, right))
    assert found.before["log_loss"] == pytest.approx(log_loss(targets, softened(logits, 1.0), labels=range(5)))
