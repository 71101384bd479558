"""The features of a frozen network: extracted once, kept beside the checkpoint, and what the recipe `features` fits."""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from taxonet.console import Listener
from taxonet.evaluation import Evaluation
from taxonet.evaluation.spread import answers
from taxonet.files import make_folder, write_atomically
from taxonet.images import Preprocessing
from taxonet.inference.features import BATCH, features_each
from taxonet.networks.layers import Network
from taxonet.processes import World
from taxonet.training import loop
from taxonet.training.head import PENALTIES, Head, fit_by_cross_validation
from taxonet.training.pictures import Pictures

CACHE = "last/features.safetensors"


def extract(
    network: Network,
    preprocessing: Preprocessing,
    pictures: Pictures,
    paths: Sequence[Path],
    listener: Listener,
    world: World,
) -> NDArray[np.float32]:
    """What the classifier sees of each picture, without augmentation: (n, num_features).

    The processes of `world` divide the pictures; the features are the same bits for any number of them.
    """
    rows = answers(paths, lambda mine: _features(network, preprocessing, pictures, mine, listener), BATCH, world)
    return np.stack([row for row in rows if not isinstance(row, str)])


def _features(
    network: Network, preprocessing: Preprocessing, pictures: Pictures, paths: Sequence[Path], listener: Listener
) -> Iterator[NDArray[np.float32]]:
    network.eval()
    listener.start("features of the frozen network", len(paths))
    found = features_each(network, preprocessing, paths, lambda path: preprocessing.pixels(pictures.open(path)))
    for done, row in enumerate(found, start=1):
        assert row is not None
        yield row
        listener.advance(done)
    listener.finish()


def fit_frozen(training: loop.Training, class_weights: Sequence[float] | None) -> Evaluation:
    """Fit the classifier on the features of the frozen network, its penalty chosen by cross-validation on the training
    pictures; the validation pictures are only measured."""
    start = time.monotonic()
    features = _cached(training)
    training.listener.start("cross-validation", len(PENALTIES))
    head = fit_by_cross_validation(
        features, training.labels, training.recipe.seed, class_weights, training.listener.advance
    )
    training.listener.finish()
    head.put_into(training.network)
    training.listener.say(f"classifier: {head.reason}")
    return _record(training, head, features, time.monotonic() - start)


def _cached(training: loop.Training) -> NDArray[np.float32]:
    """The features of the training pictures, from the run's folder where a stopped run left them."""
    path, world = training.run / CACHE, training.world
    data = world.from_first(lambda: _stored(path, training.key))
    if data:
        return load(data)["features"]
    paths = [sample.path for sample, _ in training.train]
    features = extract(training.network, training.preprocessing, training.pictures, paths, training.listener, world)
    if world.first:
        make_folder(path.parent)
        write_atomically(path, save({"features": features}, {"key": training.key}))
    return features


def _stored(path: Path, key: str) -> bytes:
    """The bytes of the cache, empty where it is not there, cut off or of another run."""
    try:
        with safe_open(path, "numpy") as file:
            return path.read_bytes() if (file.metadata() or {}).get("key") == key else b""
    except (SafetensorError, OSError):
        return b""


def _record(training: loop.Training, head: Head, features: NDArray[np.float32], seconds: float) -> Evaluation:
    """Measure the network and write the one line of the run's log."""
    evaluation = loop.validate(training)
    probabilities = head.probabilities(features)
    truth = np.asarray(training.labels)
    likelihood = probabilities[np.arange(len(truth)), truth]
    line = {
        "epoch": 1,
        "train_loss": float(-np.log(np.clip(likelihood, 1e-12, 1)).mean()),
        "train_top1": float((probabilities.argmax(1) == truth).mean()),
        "val_loss": evaluation.metrics.log_loss,
        "val_top1": evaluation.metrics.top1,
        "lr": 0.0,
        "inverse_penalty": head.inverse_penalty,
        "seconds": round(seconds, 2),
        "images_per_second": round(len(truth) / max(seconds, 1e-9), 2),
    }
    if training.world.first:
        write_atomically(training.run / loop.LOG, (json.dumps(line) + "\n").encode())
        training.loggers.epoch(line)
    return evaluation
