"""The classifier alone: logistic regression on the features of the frozen network."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from taxonet.networks.layers import Network

MOST_PICTURES = 20_000  # more do not move a classifier that is only a start
INVERSE_PENALTY = 0.003  # weak answers on purpose: a head that fits already would teach the layers below nothing
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-9, 3))  # C of logistic regression on features of deviation 1
FOLDS = 5
ITERATIONS = 500

Features = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """A linear classifier: weight (classes, features), bias (classes), and why it is this one."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    inverse_penalty: float
    reason: str = ""

    def put_into(self, network: Network) -> None:
        """Make it the network's classifier."""
        with torch.no_grad():
            network.classifier.weight.copy_(torch.from_numpy(self.weight))
            if network.classifier.bias is not None:
                network.classifier.bias.copy_(torch.from_numpy(self.bias))

    def probabilities(self, features: Features) -> NDArray[np.float64]:
        """(n, classes) of features (n, features)."""
        logits = features @ self.weight.T + self.bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
        return shares


def choose_pictures(labels: Sequence[int], seed: int) -> list[int]:
    """The places of at most `MOST_PICTURES` pictures in random order; a rare class is never missed."""
    order = np.random.default_rng([seed, 0x4EAD]).permutation(len(labels)).tolist()
    first = {labels[place]: i for i, place in reversed(list(enumerate(order)))}
    return [order[i] for i in sorted({*first.values(), *range(min(len(order), MOST_PICTURES))})]


def fit_head(
    features: Features, labels: Sequence[int], bias: bool, class_weights: Sequence[float] | None = None
) -> tuple[Head, float]:
    """A first classifier for a network that is trained from there, and its accuracy on these features.

    Every class of the network needs at least one picture; `class_weights` are by class.
    """
    model = _regression(INVERSE_PENALTY, class_weights, bias)
    _fit(model, features, labels)
    return Head(*_coefficients(model), INVERSE_PENALTY), float(model.score(features, labels))


def fit_by_cross_validation(
    features: Features,
    labels: Sequence[int],
    seed: int,
    class_weights: Sequence[float] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Head:
    """The classifier whose penalty has the lowest log loss in stratified cross-validation over `PENALTIES`.

    Features are brought to mean 0 and deviation 1 first, which is folded into the weights, so that one scale of
    penalties serves every network.
    """
    mean, deviation = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    scaled, truth = (features - mean) / deviation, np.asarray(labels)
    chosen, reason = _choose_penalty(scaled, truth, seed, class_weights, progress)
    model = _regression(chosen, class_weights)
    _fit(model, scaled, truth)
    weight, bias = _coefficients(model)
    weight = weight / deviation
    return Head(weight, bias - weight @ mean, chosen, reason)


def _choose_penalty(
    features: NDArray[np.float64],
    labels: NDArray[np.int64],
    seed: int,
    class_weights: Sequence[float] | None,
    progress: Callable[[int], None],
) -> tuple[float, str]:
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.bincount(labels)[np.unique(labels)].min()))
    if folds < 2:
        return 0.01, "C 0.01, a class has one picture only and nothing to cross-validate with"
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels))
    losses, rights = [], []
    for done, penalty in enumerate(PENALTIES, start=1):
        out_of_fold = np.zeros((len(labels), int(labels.max()) + 1))
        for inside, outside in parts:
            model = _regression(penalty, class_weights)
            _fit(model, features[inside], labels[inside])
            out_of_fold[np.ix_(outside, model.classes_)] = model.predict_proba(features[outside])
        likelihood = out_of_fold[np.arange(len(labels)), labels]
        weights = 1.0 if class_weights is None else np.asarray(class_weights)[labels]
        losses.append(float((-np.log(np.clip(likelihood, 1e-12, 1)) * weights).mean()))
        rights.append(float((out_of_fold.argmax(1) == labels).mean()))
        progress(done)
        if losses[-1] > 1.5 * min(losses):  # the loss has one valley, and weak penalties are the slow ones
            break
    best = int(np.argmin(losses))
    return PENALTIES[best], (
        f"logistic regression with C {PENALTIES[best]:.2g}, the best of {len(losses)} by {folds}-fold cross-validation "
        f"on the training pictures: log loss {losses[best]:.3f}, top-1 {rights[best]:.3f}"
    )


def _regression(inverse_penalty: float, class_weights: Sequence[float] | None, bias: bool = True) -> Any:
    from sklearn.linear_model import LogisticRegression

    weights = None if class_weights is None else dict(enumerate(map(float, class_weights)))
    return LogisticRegression(C=inverse_penalty, max_iter=ITERATIONS, class_weight=weights, fit_intercept=bias)


def _fit(model: Any, features: NDArray[Any], labels: Sequence[int] | NDArray[np.int64]) -> None:
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    # one thread: the matrices are thin, and threads that wait for each other on a busy machine take many times as long
    with warnings.catch_warnings(), threadpool_limits(1, "blas"):
        warnings.filterwarnings("ignore", message=".*failed to converge.*")  # weak penalties; they are not chosen
        model.fit(features, labels)


def _coefficients(model: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weight, bias = np.asarray(model.coef_), np.broadcast_to(model.intercept_, len(model.coef_))
    if len(weight) == 1:  # two classes: scikit-learn fits one margin
        return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, np.array(bias)
