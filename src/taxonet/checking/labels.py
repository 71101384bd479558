"""Labels in doubt: confident learning on answers that a picture's own label had no part in.

A pretrained network stays as it is; a logistic regression on its features answers for each fifth of the pictures after
it was fitted on the others. Where answers contradict a label more surely than is usual for that class, the label is
doubted (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", section 3:
the joint by class-conditional thresholds, then pruning by class and by noise rate).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.errors import ImageError
from taxonet.figures import duration
from taxonet.images import Preprocessing
from taxonet.inference.features import BATCH, features_each

FOLDS = 5
MOST_FITTED = 20_000  # more do not move a linear classifier
PENALTIES = (0.003, 0.01, 0.03)  # C of features with variance 1; the one with the least loss in the first fold


@dataclass(frozen=True)
class Doubt:
    """A label in doubt: the picture's position, the class it looks like, and both probabilities."""

    position: int
    answer: int
    probability: float
    own: float


@dataclass(frozen=True)
class LabelCheck:
    """Doubts, the surest first, and how often the answers agree with the labels (out of fold)."""

    doubts: tuple[Doubt, ...]
    judged: int
    agreement: float


def check_labels(
    paths: Sequence[Path],
    labels: NDArray[np.intp],
    families: NDArray[np.intp],
    model: str,
    seed: int,
    listener: Listener,
) -> LabelCheck | str:
    """Doubt labels.

    Args:
        paths: the pictures.
        labels: (n,) class indices.
        families: (n,) numbers that copies of one photo share: they are never on both sides of a fold.
        model: the network, or bundle, whose features are used.
        seed: of the folds.
        listener: who is told the time it takes, and follows it.

    Returns:
        The doubts, or the reason why labels cannot be judged.
    """
    chosen = _judgeable(labels, families)
    if len(np.unique(labels[chosen])) < 2:
        return f"labels need two classes with at least {FOLDS} different pictures each"
    features, read = extract_features([paths[i] for i in chosen], model, listener)
    chosen = chosen[read]
    if len(_judgeable(labels[chosen], families[chosen])) < len(chosen):
        return "too many pictures could not be read a second time"
    classes, numbers = np.unique(labels[chosen], return_inverse=True)
    listener.say("wrong labels: fitting classifiers on the features")
    probabilities = out_of_fold(features, numbers, families[chosen], seed)
    doubts = tuple(
        Doubt(
            int(chosen[i]), int(classes[answer]), float(probabilities[i, answer]), float(probabilities[i, numbers[i]])
        )
        for i, answer in doubtful(probabilities, numbers)
    )
    return LabelCheck(doubts, len(chosen), float((probabilities.argmax(axis=1) == numbers).mean()))


def _judgeable(labels: NDArray[np.intp], families: NDArray[np.intp]) -> NDArray[np.intp]:
    """Positions of classes with enough different photos for every fold."""
    distinct = np.unique(np.stack([labels, families]), axis=1)[0]
    classes, counts = np.unique(distinct, return_counts=True)
    return np.flatnonzero(np.isin(labels, classes[counts >= FOLDS]))


def extract_features(
    paths: Sequence[Path], model: str, listener: Listener
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Pooled features (m, F) of the network, and the positions of the m pictures that could be read."""
    from taxonet.weights.networks import open_model

    info, network = open_model(model)
    preprocessing = Preprocessing.parse(info.preprocessing)

    def pixels(path: Path) -> NDArray[np.uint8] | None:
        try:
            return preprocessing.pixels(path)
        except ImageError:  # gone since it was looked at
            return None

    rows: list[NDArray[np.float32]] = []
    read: list[int] = []
    started = time.monotonic()
    for position, row in enumerate(features_each(network, preprocessing, paths, pixels)):
        if row is not None:
            rows.append(row)
            read.append(position)
        if position + 1 == min(BATCH, len(paths)):
            _say_how_long(listener, info.variant, len(paths), position + 1, time.monotonic() - started)
        listener.advance(position + 1)
    listener.finish()
    return np.stack(rows) if rows else np.empty((0, 0), np.float32), np.array(read, np.intp)


def _say_how_long(listener: Listener, variant: str, total: int, done: int, seconds: float) -> None:
    listener.say(
        f"wrong labels: {total:,} pictures through {variant}, about {duration(seconds / done * total)} "
        "(--no-labels leaves this out)"
    )
    listener.start("features for the labels", total)


def out_of_fold(
    features: NDArray[np.float32], labels: NDArray[np.intp], families: NDArray[np.intp], seed: int
) -> NDArray[np.float64]:
    """Probabilities (n, classes), each row from a classifier that has seen neither the picture nor a copy of it."""
    folds = _folds(labels, families, seed)
    count = int(labels.max()) + 1
    table = np.zeros((len(labels), count))
    scaled = features / max(float(features.std()), 1e-6)
    penalty: float | None = None
    for fold in range(FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        penalty = penalty or _best_penalty(scaled, labels, inside, outside, seed)
        model = _fit(scaled, labels, inside, penalty, seed)
        table[np.ix_(outside, model.classes_)] = model.predict_proba(scaled[outside])
    return table


def _folds(labels: NDArray[np.intp], families: NDArray[np.intp], seed: int) -> NDArray[np.intp]:
    """A fold for each picture: stratified by class, copies of one photo together."""
    from sklearn.model_selection import StratifiedKFold

    _, first, family = np.unique(families, return_index=True, return_inverse=True)
    fold_of = np.zeros(len(first), np.intp)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for fold, (_, held) in enumerate(splitter.split(first, labels[first])):
        fold_of[held] = fold
    return fold_of[family]


def _fit(features: NDArray[np.float32], labels: NDArray[np.intp], inside: NDArray[np.intp], c: float, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    if len(inside) > MOST_FITTED:
        inside = np.random.default_rng([seed, 0x1AB]).choice(inside, MOST_FITTED, replace=False)
    return LogisticRegression(C=c, max_iter=200).fit(features[inside], labels[inside])


def _best_penalty(
    features: NDArray[np.float32],
    labels: NDArray[np.intp],
    inside: NDArray[np.intp],
    outside: NDArray[np.intp],
    seed: int,
) -> float:
    def loss(c: float) -> float:
        model = _fit(features, labels, inside, c, seed)
        known = np.isin(labels[outside], model.classes_)
        rows = model.predict_proba(features[outside[known]])
        own = rows[np.arange(len(rows)), np.searchsorted(model.classes_, labels[outside[known]])]
        return float(-np.log(np.maximum(own, 1e-12)).mean())

    return min(PENALTIES, key=loss)


def doubtful(probabilities: NDArray[np.float64], labels: NDArray[np.intp]) -> list[tuple[int, int]]:
    """(picture, class it looks like) for each label in doubt, that with the least probability first.

    A picture is named when pruning by class and pruning by noise rate both choose it (the paper's method 5).
    """
    noise = confident_joint(probabilities, labels)
    np.fill_diagonal(noise, 0)
    own = probabilities[np.arange(len(labels)), labels]
    answers = probabilities.argmax(axis=1)
    by_class, by_rate = np.zeros(len(labels), bool), np.zeros(len(labels), bool)
    for label in range(len(noise)):
        members = np.flatnonzero(labels == label)
        by_class[_least(members, own[members], noise[label].sum())] = True
        for other in np.flatnonzero(noise[label]):
            by_rate[_least(members, own[members] - probabilities[members, other], noise[label, other])] = True
    chosen = np.flatnonzero(by_class & by_rate & (answers != labels))
    return [(int(i), int(answers[i])) for i in chosen[np.argsort(own[chosen], kind="stable")]]


def _least(members: NDArray[np.intp], score: NDArray[np.float64], count: float) -> NDArray[np.intp]:
    return members[np.argsort(score, kind="stable")[: round(count)]]


def confident_joint(probabilities: NDArray[np.float64], labels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Estimated counts (classes, classes) of given label against true class; rows sum to the labels' counts.

    A picture counts for the likeliest of the classes whose own average confidence it reaches (equations 1 and 2).
    """
    count = probabilities.shape[1]
    sizes = np.bincount(labels, minlength=count)
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], count)
    thresholds = own / np.maximum(sizes, 1)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    counted = confident.max(axis=1) >= 0
    joint = np.zeros((count, count))
    np.add.at(joint, (labels[counted], confident.argmax(axis=1)[counted]), 1)
    empty = joint.sum(axis=1) == 0
    joint[empty, empty] = 1
    calibrated: NDArray[np.float64] = joint / joint.sum(axis=1, keepdims=True) * sizes[:, None]
    return calibrated
