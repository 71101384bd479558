"""The training loop. Batches, augmentation and dropout are pure functions of (seed, epoch, place), so a run that was
stopped anywhere goes on as if it had never been stopped."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from taxonet.console import Listener
from taxonet.data import Sample
from taxonet.errors import BundleError, DataError, ImageError, TrainingError
from taxonet.evaluation import Evaluation, evaluate_samples
from taxonet.files import write_atomically
from taxonet.images import Augmentation, Preprocessing
from taxonet.inference import Classifier
from taxonet.networks.layers import Network, batch_norms
from taxonet.networks.memory import is_out_of_memory
from taxonet.processes import PeerLostError, World, launched
from taxonet.training.balance import weights_of
from taxonet.training.checkpoint import KEPT, Position, apply_checkpoint, read_newest, save_checkpoint
from taxonet.training.deadline import Deadline, last_step, place_in_schedule
from taxonet.training.distillation import Rendering, Teacher
from taxonet.training.distributed import add_up_gradients, share_norms
from taxonet.training.ema import MovingAverage
from taxonet.training.feed import Batch, Feed, Rendered, steps_of
from taxonet.training.loggers import Loggers
from taxonet.training.memory import NormStatistics, found_splits, halved, smallest_part
from taxonet.training.objective import Objective, Sums
from taxonet.training.optimizers import clip_adaptively, make_optimizer
from taxonet.training.pictures import Pictures
from taxonet.training.recipe import Recipe
from taxonet.training.schedule import learning_rate
from taxonet.training.stopping import best_epoch, is_over, keep_best, load_best, read_log

CHECKPOINT_SECONDS = 120.0  # at most so much work is lost to a power cut or a process that dies
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
    loggers: Loggers = field(default_factory=Loggers)
    world: World = field(default_factory=World)
    keep_checkpoints: int = KEPT
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    deadline: Deadline | None = None  # of a run with a budget of time

    def __post_init__(self) -> None:
        self.network.to(self.world.device)
        if self.recipe.sync_norm:
            share_norms(self.network, self.world)
        if self.recipe.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recipe.ema_decay:
            self.average = MovingAverage(self.network, self.recipe.ema_decay)
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.augment = Augmentation.parse(self.recipe.augmentation)
        self.labels = [label for _, label in self.train]
        counts = np.bincount(self.labels, minlength=self.network.classifier.out_features).tolist()
        weights = weights_of(self.recipe, counts) if self.recipe.balance == "loss" else None
        self.feed = Feed(
            self.recipe,
            self.labels,
            self.preprocessing.output_size,
            self._rendered,
            self.world,
            smallest_part(self.network, self.recipe.norm_statistics == "train"),
        )
        if self.teacher:
            self.teacher.network.to(self.world.device)
        self.objective = Objective(self.network, self.recipe, self.preprocessing, weights, self.teacher)
        self.rendering = (
            Rendering(self.augment, self.preprocessing, self.teacher.preprocessing) if self.teacher else None
        )

    def _rendered(self, epoch: int, place: int, again: int) -> Rendered:
        """A training picture, augmented as the epoch has it."""
        rng = np.random.default_rng([self.recipe.seed, epoch, place, 2, *([again] if again else [])])
        path = self.train[place][0].path
        try:
            picture = self.pictures.open(path)
        except ImageError as error:
            raise DataError(f"{path} could be read when the run began, and now cannot: {error}") from error
        return self.rendering(picture, rng) if self.rendering else (self.augment(picture, rng), None)

    def log_here(self) -> list[dict[str, Any]]:
        """The lines of the run's log, in the process that writes it."""
        return read_log(self.run / LOG)

    def log(self) -> list[dict[str, Any]]:
        """The lines of the run's log, in every process."""
        lines: list[dict[str, Any]] = json.loads(self.world.from_first(lambda: json.dumps(self.log_here()).encode()))
        return lines

    @property
    def networks(self) -> Mapping[str, nn.Module]:
        """What a checkpoint holds."""
        return {"network": self.network} | ({"average": self.average.network} if self.average else {})

    @property
    def result(self) -> Network:
        """The network that is evaluated and shipped."""
        return self.average.network if self.average else self.network

    def restore(self) -> bool:
        """Go to where the run stopped; False if it has no checkpoint. The first process reads, all get what it read."""
        data = self.world.from_first(lambda: read_newest(self.run, self.key, self.listener.say))
        if data:
            self.position = apply_checkpoint(data, self.networks, self.optimizer)
            if self.deadline:
                self.deadline.go_on(self.position.used)
        splits = found_splits(self.run, self.world)
        if splits > self.position.splits:
            self.position.splits = splits
            self.listener.say(f"memory ran out before: each part of the batch is now taken in {splits}")
        if self.world.first:
            _truncate_log(self.run / LOG, self.position.epoch)
        return bool(data)

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return steps_of(self.recipe, len(self.train))

    @property
    def planned_steps(self) -> int:
        """The steps of the recipe's epochs."""
        return self.recipe.epochs * self.steps

    @property
    def last_step(self) -> int:
        """The step after which training ends: that of the recipe's epochs, or an earlier one for a budget."""
        return last_step(self.position.cuts, self.planned_steps)

    @property
    def is_over(self) -> bool:
        """Whether all steps are done, and the validation after them."""
        return self.position.step == 0 and self.position.steps_in_all >= self.last_step

    def save(self) -> None:
        """Write the checkpoint, which is the first process's work."""
        if self.deadline:
            self.position.used = self.deadline.used()
        if self.world.first:
            save_checkpoint(self.run, self.position, self.networks, self.optimizer, self.key, self.keep_checkpoints)


def fit(training: Training) -> Evaluation:
    """Train to the recipe's last epoch; returns the evaluation of the last one.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; the checkpoint is written, nothing is lost.
    """
    evaluation: Evaluation | None = None
    with _stop_signals() as stopped:
        while not training.is_over and not _has_stopped_early(training):
            _train_epoch(training, stopped)
            start = time.monotonic()
            evaluation = _finish_epoch(training)
            if training.deadline:
                training.deadline.saw_between(time.monotonic() - start)
    if training.recipe.patience:
        evaluation = None
        load_best(training.run, training.result, training.world)
        best = best_epoch(training.log())
        training.listener.say(f"the weights of epoch {best}, of {training.position.epoch} the lowest validation loss")
    return evaluation or evaluate_samples(training.classifier(training.result), training.val, world=training.world)


def _has_stopped_early(training: Training) -> bool:
    patience = training.recipe.patience
    over = is_over(training.log(), patience) if patience else False
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
        if stopped.is_set() and not launched():  # torchrun passes a signal on that the terminal has sent already
            raise KeyboardInterrupt
        stopped.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if stopped.is_set() and launched() else handler)


def _train_epoch(training: Training, stopped: threading.Event) -> None:
    position, recipe, steps = training.position, training.recipe, training.steps
    set_training_mode(training.network, recipe)
    training.listener.start(f"epoch {position.epoch + 1}/{recipe.epochs}", steps)
    saved = started = time.monotonic()
    loaded = training.feed.load(position.epoch, position.step, min(steps, training.last_step - position.epoch * steps))
    try:
        for batch in loaded:
            splits = position.splits
            step(training, batch, steps)
            now = time.monotonic()
            took, started = now - started, now
            position.seconds += took
            training.listener.advance(position.step, _progress_note(position))
            if training.deadline:
                _keep_the_deadline(training, training.deadline, took)
            if training.world.any(stopped.is_set()):
                training.world.agreed(training.save)
                raise InterruptedRun
            if now - saved > training.checkpoint_seconds or position.splits > splits:
                training.save()
                saved = now
            if position.steps_in_all >= training.last_step:
                break
    except PeerLostError:
        raise  # the steps of the others are unknown
    except DataError:  # a picture cannot be read any more
        training.save()
        raise
    finally:
        loaded.close()
    training.listener.finish()


def _keep_the_deadline(training: Training, deadline: Deadline, took: float) -> None:
    """Shorten the rest of the schedule where the budget would not hold; what is decided is saved at once."""
    deadline.saw_step(took)
    position, steps = training.position, training.steps
    step, end = position.steps_in_all, training.last_step
    new = deadline.new_end(step, end, steps)
    if new is not None:
        training.listener.say(deadline.sentence(step, end, new, steps))
        position.cuts.append([step, new])
        training.save()


def _progress_note(position: Position) -> str:
    loss, right = position.loss_sum / position.seen, position.right / position.seen
    return f"loss {loss:.3f}  top-1 {right:.3f}  {position.seen / position.seconds:.0f} images/s"


def set_training_mode(network: Network, recipe: Recipe) -> None:
    """Training mode; batch norm keeps and uses the statistics it came with where the recipe freezes them."""
    if not recipe.channels_last:  # evaluation has laid the weights out for itself
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.train()
    for norm in batch_norms(network):
        norm.momentum = recipe.norm_momentum
        norm.train(recipe.norm_statistics == "train")
    freeze_stages(network, recipe.frozen_stages)


def freeze_stages(network: Network, count: int) -> None:
    """The first `count` stages keep weights and statistics: no gradient is computed for or through them."""
    for stage in list(network.body.children())[:count]:
        stage.eval().requires_grad_(False)


def step(training: Training, batch: Batch, steps: int) -> None:
    """One step of the optimiser; an epoch has `steps` of them."""
    recipe, position, world = training.recipe, training.position, training.world
    rate = _rate(training, position.step)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    sums, share = _gradients(training, batch), len(batch.own) / batch.count
    total, loss, right = world.sums((sums.total, sums.loss, float(sums.right)))
    if not math.isfinite(total):
        raise _diverged(training, f"the loss is {total / batch.count}")
    position.loss_sum, position.right = position.loss_sum + loss, position.right + int(right)
    position.seen += batch.count
    own_statistics = not recipe.sync_norm and recipe.norm_statistics == "train"
    add_up_gradients(training.network, world, share, norms_differ=own_statistics)
    if recipe.clip_norm:
        nn.utils.clip_grad_norm_(training.network.parameters(), recipe.clip_norm)
    if recipe.agc:
        clip_adaptively(training.network, recipe.agc)
    training.optimizer.step()
    position.step += 1
    position.steps_in_all += 1
    if training.average:
        training.average.update(training.network, position.steps_in_all)


def _rate(training: Training, step: int) -> float:
    """The learning rate of a step of the epoch."""
    position, steps = training.position, training.steps
    if not position.cuts:
        return learning_rate(training.recipe, position.epoch + step / steps)
    place = place_in_schedule(position.epoch * steps + step, position.cuts, training.planned_steps)
    return learning_rate(training.recipe, place / steps)


def _gradients(training: Training, batch: Batch) -> Sums:
    """The gradients of the step's mean loss; where memory runs out, in more and smaller parts from then on."""
    recipe, position = training.recipe, training.position
    seed = np.random.SeedSequence([recipe.seed, position.epoch, position.step, 3])
    statistics = NormStatistics(training.network)
    while True:
        torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))  # dropout
        training.optimizer.zero_grad(set_to_none=True)
        try:
            return training.objective.backward(batch, position.splits)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        statistics.restore()  # here and not above: the error holds what the failed pass had allocated
        training.optimizer.zero_grad(set_to_none=True)
        position.splits *= 2
        training.listener.say(halved(training.network, batch, position.splits, training.world, training.run))


def _diverged(training: Training, what: str) -> TrainingError:
    epoch, rate = training.position.epoch + 1, training.recipe.lr
    return TrainingError(f"training diverged in epoch {epoch}: {what}; try a lower lr than {rate:g}")


def _finish_epoch(training: Training) -> Evaluation:
    position = training.position
    if not all(torch.isfinite(value).all() for value in training.result.state_dict().values()):
        raise _diverged(training, "the weights are not finite")
    evaluation = validate(training)
    line = _log_line(training, evaluation)
    training.world.agreed(lambda: _keep_epoch(training, line))
    training.position = Position(
        epoch=position.epoch + 1, steps_in_all=position.steps_in_all, splits=position.splits, cuts=position.cuts
    )
    training.save()
    training.loggers.epoch(line)  # after the checkpoint: they may reach for a server
    training.listener.say(
        f"epoch {line['epoch']:>3}/{training.recipe.epochs}  loss {line['train_loss']:.3f}  "
        f"top-1 {line['train_top1']:.3f}  |  validation: loss {line['val_loss']:.3f}  top-1 {line['val_top1']:.3f}  "
        f"|  {line['images_per_second']:.0f} images/s, {line['seconds']:.0f} s"
    )
    return evaluation


def _keep_epoch(training: Training, line: Mapping[str, Any]) -> None:
    """Write the epoch's line, before the checkpoint that counts it, and the best weights; the first process's work."""
    if not training.world.first:
        return
    path = training.run / LOG
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
            log.flush()
            os.fsync(log.fileno())
    except OSError as error:
        raise DataError(
            f"cannot write '{path}': {error.strerror or error}; --resume goes on from the last checkpoint"
        ) from error
    if training.recipe.patience:
        keep_best(training.run, training.log_here(), training.result)


def validate(training: Training) -> Evaluation:
    """Measure the network that would be shipped now."""
    training.listener.start(f"validation {training.position.epoch + 1}/{training.recipe.epochs}", len(training.val))
    classifier = training.classifier(training.result)
    try:
        evaluation = evaluate_samples(
            classifier, training.val, lambda done, _: training.listener.advance(done), world=training.world
        )
    except BundleError as error:  # weights that are finite but huge
        raise _diverged(training, str(error)) from error
    training.listener.finish()
    return evaluation


def _log_line(training: Training, evaluation: Evaluation) -> dict[str, Any]:
    position = training.position
    return {
        "epoch": position.epoch + 1,
        "train_loss": position.loss_sum / position.seen,
        "train_top1": position.right / position.seen,
        "val_loss": evaluation.metrics.log_loss,
        "val_top1": evaluation.metrics.top1,
        "lr": _rate(training, position.step - 1),
        "seconds": round(position.seconds, 2),
        "images_per_second": round(position.seen / max(position.seconds, 1e-9), 2),
        **({"cuts": position.cuts, "steps": position.step} if position.cuts else {}),
    }


def _truncate_log(path: Path, epochs: int) -> None:
    """Drop lines after the checkpoint's epoch: they will be written again."""
    if path.exists():
        lines = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
        write_atomically(path, "".join(lines[:epochs]).encode())
