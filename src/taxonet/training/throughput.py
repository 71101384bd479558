"""How fast this machine trains a network on these photos: a few real steps on a few of them, and nothing kept."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from taxonet.console import Silent
from taxonet.data import Sample, read_ahead
from taxonet.errors import DataError
from taxonet.images.colour import Mode
from taxonet.inference import Classifier
from taxonet.inference.engines import TorchEngine
from taxonet.processes import World
from taxonet.training.budget_rule import Rates
from taxonet.training.candidates import Candidate
from taxonet.training.checkpoint import save_checkpoint
from taxonet.training.distillation import Teacher
from taxonet.training.features import extract
from taxonet.training.loop import Training, set_training_mode, step
from taxonet.training.pictures import WORKING_SCALE, Pictures, Split
from taxonet.training.recipe import Recipe
from taxonet.training.starting import Start
from taxonet.weights.bundle import BundleInfo

PHOTOS = 48  # that are opened; a step takes them again where it wants more
ANSWERED = 16  # photos that are validated, and taken through the frozen network
# Training steps: at least 3, then until the seconds are over. The first makes kernels and buffers, and the later half
# counts: quick networks take some steps to come into their pace.
STEPS, MOST_STEPS, STEP_SECONDS = 3, 24, 1.5
NO_LIMIT = 2**40
FIT_ROWS, FIT_ITERATIONS = 2_000, 6
BACKWARD = 3.5  # a training step beside the frozen network's forward pass, until one was measured
HOPE = 0.85  # estimates are somewhat too good, so that what could win is measured and not believed

T = TypeVar("T")


def measure(start: Start, recipe: Recipe, split: Split, steps: bool, world: World) -> Rates:
    """The rates of a network at the recipe's size; its training steps too if `steps`.

    Raises:
        DataError: none of the photos that it looked at can be read.
        TrainingError: memory does not hold the smallest step.
    """
    began, network = _timed(lambda: start.build(recipe, len(split.classes)))
    if start.pretrained:
        start.pretrained.load_into(network, None)
    size = recipe.image_size
    decode, samples, pictures = _opened(split.train, size, start.channels)
    with tempfile.TemporaryDirectory() as folder:
        training = _training(Path(folder), start, recipe, split, samples, pictures, network, world)
        paths = [sample.path for sample in samples]
        answer = _per_picture(lambda p: list(training.classifier(network).score_each(p)), paths)
        preprocessing = training.preprocessing
        feature = _per_picture(lambda p: extract(network, preprocessing, pictures, p, Silent(), world), paths)
        fit = fit_step(len(split.train), network.num_features, len(split.classes))
        rates = Rates(decode, answer, feature, BACKWARD * feature, 0.0, began, fit, answer_measured=True)
        return _with_steps(rates, training) if steps else rates


def estimated(candidate: Candidate, size: int, measured: Sequence[tuple[Candidate, int, Rates]]) -> Rates:
    """Rates by multiply-adds, from the measured network that is the most like it."""
    same = [m for m in measured if m[0].network == candidate.network]
    near = [m for m in measured if m[0].sheet.name.split("_")[0] == candidate.sheet.name.split("_")[0]]
    own, macs = bool(same), candidate.macs(size)
    known, known_size, rates = min(same or near or measured, key=lambda m: abs(m[0].macs(m[1]) - macs))
    ratio = macs / known.macs(known_size) * (1 if own else HOPE)
    with_steps = [m[2] for m in measured if m[2].step_measured]
    backward = statistics.median([r.step / r.feature for r in with_steps]) if with_steps else HOPE * BACKWARD
    reading = min(rates.decode, rates.answer)
    feature = rates.feature * ratio
    return Rates(
        rates.decode,
        reading + (rates.answer - reading) * ratio,
        feature,
        rates.step * ratio if rates.step_measured else feature * backward,
        rates.save * candidate.sheet.params / known.sheet.params,
        rates.begin,
        rates.fit * candidate.plain.num_features / known.plain.num_features,
    )


def slower(rates: Rates, factor: float) -> Rates:
    """The rates of a network that takes so many times as long."""
    return replace(rates, answer=rates.answer * factor, feature=rates.feature * factor, step=rates.step * factor)


def fit_step(pictures: int, features: int, classes: int) -> float:
    """Seconds of one step of the logistic regression that fits a classifier, on as many rows as are telling."""
    from taxonet.training.head import _fit, _regression

    rows = max(min(pictures, FIT_ROWS), classes)
    rng = np.random.default_rng(0)
    matrix, labels = rng.standard_normal((rows, features)), np.arange(rows) % classes
    model = _regression(0.01, None).set_params(max_iter=FIT_ITERATIONS, tol=1e-12)
    _fit(model.set_params(max_iter=1), matrix[:classes], labels[:classes])  # loads the library
    seconds, _ = _timed(lambda: _fit(model.set_params(max_iter=FIT_ITERATIONS), matrix, labels))
    return seconds / FIT_ITERATIONS * pictures / rows


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _per_picture(work: Callable[[Sequence[Path]], object], paths: Sequence[Path]) -> float:
    work(paths[:2])  # makes the kernels
    seconds, _ = _timed(lambda: work(paths[:ANSWERED]))
    return seconds / len(paths[:ANSWERED])


def _opened(samples: Sequence[Sample], size: int, channels: int) -> tuple[float, list[Sample], Pictures]:
    """Seconds a photo, the readable ones of a sample, and their pictures as a run keeps them."""
    mode: Mode = "L" if channels == 1 else "RGB"
    store = Pictures(round(size * WORKING_SCALE), mode, NO_LIMIT)
    chosen = [samples[i * len(samples) // min(PHOTOS, len(samples))] for i in range(min(PHOTOS, len(samples)))]
    seconds, answers = _timed(lambda: list(read_ahead(lambda s: store.try_open(s.path), chosen)))
    readable = []
    for sample, answer in zip(chosen, answers, strict=True):
        if not isinstance(answer, str):
            store.keep(sample.path, answer)
            readable.append(sample)
    if not readable:
        raise DataError(f"none of {len(chosen)} training pictures can be read, the first: {answers[0]}")
    return seconds / len(chosen), readable, store


def _training(
    folder: Path,
    start: Start,
    recipe: Recipe,
    split: Split,
    samples: Sequence[Sample],
    pictures: Pictures,
    network: object,
    world: World,
) -> Training:
    """A run as the recipe has it, on few photos; its labels are those of the run."""
    wanted = recipe.batch_size * recipe.accumulate * MOST_STEPS
    many = [samples[i % len(samples)] for i in range(max(wanted, len(samples)))]
    places = {name: i for i, name in enumerate(split.classes)}
    preprocessing = start.sized(recipe.image_size)
    info = BundleInfo(start.variant, split.classes, str(preprocessing))
    return Training(
        run=folder,
        recipe=replace(recipe, balance="none" if recipe.balance == "sampling" else recipe.balance),
        network=network,  # type: ignore[arg-type]
        preprocessing=preprocessing,
        pictures=pictures,
        train=[(sample, places[sample.label]) for sample in many],
        val=(),
        key="",
        listener=Silent(),
        classifier=lambda built: Classifier(info, TorchEngine(built, info.preprocessing)),
        teacher=Teacher.open(recipe.teacher, split.classes) if recipe.teacher else None,
        world=world,
    )


def _with_steps(rates: Rates, training: Training) -> Rates:
    """The rates with those of training steps and of a checkpoint: pictures are read ahead as in the run."""
    set_training_mode(training.network, training.recipe)
    computing, pictures = [], 0
    whole, start = 0.0, time.perf_counter()
    loaded = training.feed.load(0, last=MOST_STEPS)
    for batch in loaded:
        seconds, _ = _timed(lambda batch=batch: step(training, batch, training.steps))  # type: ignore[misc]
        computing.append(seconds)
        pictures += batch.count
        whole = time.perf_counter() - start
        if len(computing) >= STEPS and whole >= STEP_SECONDS:
            break
    loaded.close()
    steady = statistics.mean(computing[max(1, len(computing) // 2) :] or computing)
    reading = (whole - sum(computing)) / len(computing)  # most pictures come before the first step
    saving, _ = _timed(
        lambda: save_checkpoint(training.run, training.position, training.networks, training.optimizer, "")
    )
    return replace(
        rates,
        step=(steady + reading) * len(computing) / pictures,
        save=saving,
        begin=rates.begin + max(0.0, sum(computing) - steady * len(computing)),
        step_measured=True,
    )
