"""The classifier first: fit it on the frozen network's features, so that training does not start from noise."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from taxonet.console import Listener
from taxonet.data import read_ahead
from taxonet.evaluation.spread import answers
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.processes import World
from taxonet.training.pictures import Pictures

BATCH = 32
MOST_PICTURES = 20_000  # more do not move a linear classifier
INVERSE_PENALTY = 0.003  # weak answers on purpose: a head that fits already would teach the layers below nothing


def fit_head(
    network: Network,
    preprocessing: Preprocessing,
    pictures: Pictures,
    items: Sequence[tuple[object, int]],
    seed: int,
    listener: Listener,
    world: World,
) -> float:
    """Fit `network.classifier` by logistic regression on pooled features of the pictures; returns its accuracy there.

    `items` are (path, class index); every class of the network needs at least one. The processes of `world` divide the
    pictures; the features are the same bits for any number of them.
    """
    from sklearn.linear_model import LogisticRegression

    order = np.random.default_rng([seed, 0x4EAD]).permutation(len(items))
    shuffled = [items[i] for i in order]
    first = {label: i for i, (_, label) in reversed(list(enumerate(shuffled)))}  # a rare class is never missed
    chosen = [shuffled[i] for i in sorted({*first.values(), *range(min(len(shuffled), MOST_PICTURES))})]
    found = answers(chosen, lambda part: _features(network, preprocessing, pictures, part, listener), BATCH, world)
    features, labels = np.stack([row for row in found if not isinstance(row, str)]), [label for _, label in chosen]
    has_bias = network.classifier.bias is not None
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, fit_intercept=has_bias)
    model.fit(features, labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # two classes: scikit-learn fits one margin
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    with torch.no_grad():
        network.classifier.weight.copy_(torch.from_numpy(weight))
        if has_bias:
            network.classifier.bias.copy_(torch.from_numpy(bias))
    return float(model.score(features, labels))


def _features(
    network: Network,
    preprocessing: Preprocessing,
    pictures: Pictures,
    items: Sequence[tuple[object, int]],
    listener: Listener,
) -> Iterator[NDArray[np.float32]]:
    network.eval()
    listener.start("features of the frozen network", len(items))
    with torch.inference_mode():
        batch: list[NDArray[np.uint8]] = []
        loaded = read_ahead(lambda item: preprocessing.pixels(pictures.open(item[0])), items)  # type: ignore[arg-type]
        for done, pixels in enumerate(loaded, start=1):
            batch.append(pixels)
            if len(batch) == BATCH or done == len(items):
                images = torch.from_numpy(preprocessing.normalized(np.stack(batch)))
                maps = network.forward_features(images.contiguous(memory_format=torch.channels_last))
                yield from network.pooled(maps).numpy()
                batch = []
                listener.advance(done)
    listener.finish()
