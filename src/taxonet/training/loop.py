"""The training loop. Batches, augmentation and dropout are pure functions of (seed, epoch, place), so a run that was
stopped anywhere goes on as if it had never been stopped."""

import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from taxonet.console import Listener
from taxonet.data import Sample, read_ahead
from taxonet.errors import BundleError, TrainingError
from taxonet.evaluation import Evaluation, evaluate_samples
from taxonet.files import write_atomically
from taxonet.images import Augmentation, Preprocessing
from taxonet.inference import Classifier
from taxonet.networks.layers import Network, batch_norms
from taxonet.training.balance import balanced_order, occurrences, weights_of
from taxonet.training.checkpoint import Position, load_checkpoint, save_checkpoint
from taxonet.training.distillation import Rendering, Teacher
from taxonet.training.ema import MovingAverage
from taxonet.training.loggers import RunLogger
from taxonet.training.memory import NormStatistics, is_out_of_memory, smallest_part
from taxonet.training.mixing import draw_mix
from taxonet.training.objective import Batch, NotFiniteError, Objective, Sums
from taxonet.training.optimizers import clip_adaptively, make_optimizer
from taxonet.training.pictures import Pictures
from taxonet.training.recipe import Recipe
from taxonet.training.schedule import learning_rate
from taxonet.training.stopping import best_epoch, is_over, keep_best, load_best, read_log

CHECKPOINT_SECONDS = 120.0  # at most so much work is lost to a power cut
LOG = "log.jsonl"


class InterruptedRun(Exception):  # noqa: N818 - not an error
    """The user asked to stop; the checkpoint is written."""


@dataclass
class Training:
    """Everything that one run trains with."""

    run: Path
    recipe: Recipe
    network: Network
    preprocessing: Preprocessing
    pictures: Pictures
    train: Sequence[tuple[Sample, int]]
    val: Sequence[Sample]
    key: str
    listener: Listener
    classifier: Callable[[Network], Classifier]
    position: Position = field(default_factory=Position)
    average: MovingAverage | None = None
    teacher: Teacher | None = None
    loggers: Sequence[RunLogger] = ()

    def __post_init__(self) -> None:
        if self.recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recipe.ema_decay:
            self.average = MovingAverage(self.network, self.recipe.ema_decay)
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.augment = Augmentation.parse(self.recipe.augmentation)
        self.labels = [label for _, label in self.train]
        counts = np.bincount(self.labels, minlength=self.network.classifier.out_features).tolist()
        weights = weights_of(self.recipe, counts) if self.recipe.balance == "loss" else None
        self.objective = Objective(self.network, self.recipe, self.preprocessing, weights, self.teacher)
        self.rendering = (
            Rendering(self.augment, self.preprocessing, self.teacher.preprocessing) if self.teacher else None
        )

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """What a checkpoint holds."""
        return {"network": self.network} | ({"average": self.average.network} if self.average else {})

    @property
    def result(self) -> Network:
        """The network that is evaluated and shipped."""
        return self.average.network if self.average else self.network

    def restore(self) -> bool:
        """Go to where the run stopped; False if it has no checkpoint."""
        position = load_checkpoint(self.run, self.networks, self.optimizer, self.key)
        if position is not None:
            self.position = position
        _truncate_log(self.run / LOG, self.position.epoch)
        return position is not None

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.run, self.position, self.networks, self.optimizer, self.key)


def fit(training: Training) -> Evaluation:
    """Train to the recipe's last epoch; returns the evaluation of the last one.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; the checkpoint is written, nothing is lost.
    """
    evaluation: Evaluation | None = None
    with _stop_signals() as stopped:
        while training.position.epoch < training.recipe.epochs and not _has_stopped_early(training):
            _train_epoch(training, stopped)
            evaluation = _finish_epoch(training)
    if training.recipe.patience:
        evaluation = None
        load_best(training.run, training.result)
        best = best_epoch(read_log(training.run / LOG))
        training.listener.say(f"the weights of epoch {best}, of {training.position.epoch} the lowest validation loss")
    return evaluation or evaluate_samples(training.classifier(training.result), training.val)


def _has_stopped_early(training: Training) -> bool:
    patience = training.recipe.patience
    over = is_over(read_log(training.run / LOG), patience) if patience else False
    if over:
        training.listener.say(f"stopped early: {patience} epochs without a lower validation loss")
    return over


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set; a second SIGINT stops at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# An item is the place of a training picture, and how often the epoch has shown it before.


def batches(labels: Sequence[int], recipe: Recipe, epoch: int) -> list[NDArray[np.int64]]:
    """The epoch's items (n, 2), batch by batch, in sizes that differ by one at most: no tail of one for batch norm."""
    rng, count = np.random.default_rng([recipe.seed, epoch, 1]), len(labels)
    order = balanced_order(labels, rng) if recipe.balance == "sampling" else rng.permutation(count)
    items = np.stack([order, occurrences(order)], axis=1)
    return np.array_split(items, -(-count // (recipe.batch_size * recipe.accumulate)))


def _train_epoch(training: Training, stopped: threading.Event) -> None:
    position, recipe = training.position, training.recipe
    epoch = batches(training.labels, recipe, position.epoch)
    set_training_mode(training.network, recipe)
    training.listener.start(f"epoch {position.epoch + 1}/{recipe.epochs}", len(epoch))
    saved = started = time.monotonic()
    loaded = load(training, epoch[position.step :])
    for batch in loaded:
        splits = position.splits
        step(training, batch, len(epoch))
        now = time.monotonic()
        position.seconds, started = position.seconds + now - started, now
        training.listener.advance(position.step, _progress_note(position))
        if stopped.is_set():
            loaded.close()
            training.save()
            raise InterruptedRun
        if now - saved > CHECKPOINT_SECONDS or position.splits > splits:
            training.save()
            saved = now
    training.listener.finish()


def load(training: Training, items: Sequence[NDArray[np.int64]]) -> Generator[Batch]:
    """The augmented pictures of each batch of items, read ahead."""
    epoch = training.position.epoch
    single = (item for batch in items for item in batch.tolist())
    pixels = read_ahead(lambda item: _augmented(training, epoch, *item), single, ahead=4 * training.recipe.batch_size)
    try:
        for batch in items:
            own, other = zip(*(next(pixels) for _ in batch), strict=True)
            labels = torch.tensor([training.labels[place] for place, _ in batch.tolist()])
            yield Batch(np.stack(own), labels, np.stack(other) if training.teacher else None)
    finally:
        pixels.close()  # type: ignore[attr-defined]


def _progress_note(position: Position) -> str:
    loss, right = position.loss_sum / position.seen, position.right / position.seen
    return f"loss {loss:.3f}  top-1 {right:.3f}  {position.seen / position.seconds:.0f} images/s"


def _augmented(
    training: Training, epoch: int, place: int, again: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """A picture as the network sees it and, where there is a teacher, as the teacher does."""
    rng = np.random.default_rng([training.recipe.seed, epoch, place, 2, *([again] if again else [])])
    image = training.pictures.open(training.train[place][0].path)
    return training.rendering(image, rng) if training.rendering else (training.augment(image, rng), None)


def set_training_mode(network: Network, recipe: Recipe) -> None:
    """Training mode; batch norm keeps and uses the statistics it came with where the recipe freezes them."""
    if not recipe.channels_last:  # evaluation has laid the weights out for itself
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.train()
    for norm in batch_norms(network):
        norm.momentum = recipe.norm_momentum
        norm.train(recipe.norm_statistics == "train")


def step(training: Training, batch: Batch, steps: int) -> None:
    """One step of the optimiser; an epoch has `steps` of them."""
    recipe, position = training.recipe, training.position
    rate = learning_rate(recipe, position.epoch + position.step / steps)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    sums = _gradients(training, batch)
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(training.network.parameters(), recipe.clip_norm)
    if recipe.agc:
        clip_adaptively(training.network, recipe.agc)
    training.optimizer.step()
    position.step += 1
    position.steps_in_all += 1
    if training.average:
        training.average.update(training.network, position.steps_in_all)
    position.loss_sum += sums.loss
    position.right += sums.right
    position.seen += len(batch)


def _gradients(training: Training, batch: Batch) -> Sums:
    """The gradients of the batch's mean loss; where memory runs out, in more and smaller parts from then on."""
    recipe, position = training.recipe, training.position
    size = (batch.pixels.shape[1], batch.pixels.shape[2])
    mix = draw_mix(recipe, position.epoch, position.step, len(batch), size)
    seed = np.random.SeedSequence([recipe.seed, position.epoch, position.step, 3])
    statistics = NormStatistics(training.network)
    while True:
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))  # dropout
        training.optimizer.zero_grad(set_to_none=True)
        try:
            return training.objective.backward(batch, mix, recipe.accumulate * position.splits)
        except NotFiniteError as error:
            raise _diverged(training, str(error)) from error
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        statistics.restore()  # here and not above: the error holds what the failed pass had allocated
        _halve(training, batch)


def _halve(training: Training, batch: Batch) -> None:
    """Divide each batch into twice as many parts, and say so."""
    recipe, position = training.recipe, training.position
    parts, least = 2 * recipe.accumulate * position.splits, smallest_part(training.network)
    if len(batch) // parts < least:
        height, width = batch.pixels.shape[1:3]
        raise TrainingError(
            f"memory does not hold {-(-2 * len(batch) // parts)} pictures of {height}×{width} at once; "
            "choose a smaller image_size or another model"
        )
    training.optimizer.zero_grad(set_to_none=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    position.splits *= 2
    norms = "; batch norm has the statistics of the smaller part" if least > 1 else ""
    size = -(-len(batch) // parts)
    training.listener.say(
        f"out of memory: the batch is halved to {size} pictures and accumulation doubled to {parts}, "
        f"a step still takes {len(batch)}{norms}"
    )


def _diverged(training: Training, what: str) -> TrainingError:
    epoch, rate = training.position.epoch + 1, training.recipe.lr
    return TrainingError(f"training diverged in epoch {epoch}: {what}; try a lower lr than {rate:g}")


def _finish_epoch(training: Training) -> Evaluation:
    position = training.position
    if not all(torch.isfinite(value).all() for value in training.result.state_dict().values()):
        raise _diverged(training, "the weights are not finite")
    evaluation = validate(training)
    line = _log_line(training, evaluation)
    with (training.run / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    for logger in training.loggers:
        logger.epoch(line)
    if training.recipe.patience:
        keep_best(training.run, read_log(training.run / LOG), training.result)
    training.position = Position(epoch=position.epoch + 1, steps_in_all=position.steps_in_all, splits=position.splits)
    training.save()
    training.listener.say(
        f"epoch {line['epoch']:>3}/{training.recipe.epochs}  loss {line['train_loss']:.3f}  "
        f"top-1 {line['train_top1']:.3f}  |  validation: loss {line['val_loss']:.3f}  top-1 {line['val_top1']:.3f}  "
        f"|  {line['images_per_second']:.0f} images/s, {line['seconds']:.0f} s"
    )
    return evaluation


def validate(training: Training) -> Evaluation:
    """Measure the network that would be shipped now."""
    training.listener.start(f"validation {training.position.epoch + 1}/{training.recipe.epochs}", len(training.val))
    classifier = training.classifier(training.result)
    try:
        evaluation = evaluate_samples(classifier, training.val, lambda done, _: training.listener.advance(done))
    except BundleError as error:  # weights that are finite but huge
        raise _diverged(training, str(error)) from error
    training.listener.finish()
    return evaluation


def _log_line(training: Training, evaluation: Evaluation) -> dict[str, Any]:
    position, recipe = training.position, training.recipe
    return {
        "epoch": position.epoch + 1,
        "train_loss": position.loss_sum / position.seen,
        "train_top1": position.right / position.seen,
        "val_loss": evaluation.metrics.log_loss,
        "val_top1": evaluation.metrics.top1,
        "lr": learning_rate(recipe, position.epoch + (position.step - 1) / position.step),
        "seconds": round(position.seconds, 2),
        "images_per_second": round(position.seen / max(position.seconds, 1e-9), 2),
    }


def _truncate_log(path: Path, epochs: int) -> None:
    """Drop lines after the checkpoint's epoch: they will be written again."""
    if path.exists():
        lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        write_atomically(path, "".join(lines[:epochs]).encode())
