"""The training loop. Batches, augmentation and dropout are pure functions of (seed, epoch, place), so a run that was
stopped anywhere goes on as if it had never been stopped."""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from taxonet.console import Listener
from taxonet.data import Sample, read_ahead
from taxonet.errors import BundleError, DataError, ImageError, TaxonetError, TrainingError
from taxonet.evaluation import Evaluation, evaluate_samples
from taxonet.files import write_atomically
from taxonet.images import Augmentation, Preprocessing
from taxonet.inference import Classifier
from taxonet.networks.layers import Network, batch_norms
from taxonet.processes import PeerLostError, World, launched
from taxonet.training.checkpoint import KEPT, Position, apply_checkpoint, read_newest, save_checkpoint
from taxonet.training.distributed import WholeBatch, add_up_gradients, share_norms
from taxonet.training.ema import MovingAverage
from taxonet.training.optimizers import clip_adaptively, make_optimizer
from taxonet.training.pictures import Pictures
from taxonet.training.recipe import Recipe
from taxonet.training.schedule import learning_rate

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
    world: World = field(default_factory=World)
    keep_checkpoints: int = KEPT
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        self.network.to(self.world.device)
        if self.recipe.sync_norm:
            share_norms(self.network, self.world)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recipe.ema_decay:
            self.average = MovingAverage(self.network, self.recipe.ema_decay)
        self.optimizer = make_optimizer(self.network, self.recipe)
        self.augment = Augmentation.parse(self.recipe.augmentation)

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
        if self.world.first:
            _truncate_log(self.run / LOG, self.position.epoch)
        return bool(data)

    def save(self) -> None:
        """Write the checkpoint, which is the first process's work."""
        if self.world.first:
            save_checkpoint(self.run, self.position, self.networks, self.optimizer, self.key, self.keep_checkpoints)


def fit(training: Training) -> Evaluation:
    """Train to the recipe's last epoch; returns the evaluation of the last one.

    Raises:
        InterruptedRun: SIGINT or SIGTERM came; the checkpoint is written, nothing is lost.
    """
    evaluation: Evaluation | None = None
    with _stop_signals() as stopped:
        while training.position.epoch < training.recipe.epochs:
            _train_epoch(training, stopped)
            evaluation = _finish_epoch(training)
    return evaluation or evaluate_samples(training.classifier(training.result), training.val, world=training.world)


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


def _batches(count: int, recipe: Recipe, epoch: int) -> list[NDArray[np.int64]]:
    """The epoch's order in batches whose sizes differ by one at most: no tail of one picture for batch norm."""
    order = np.random.default_rng([recipe.seed, epoch, 1]).permutation(count)
    return np.array_split(order, -(-count // recipe.batch_size))


def _train_epoch(training: Training, stopped: threading.Event) -> None:
    position, recipe = training.position, training.recipe
    batches = _batches(len(training.train), recipe, position.epoch)
    set_training_mode(training.network, recipe)
    title = f"epoch {position.epoch + 1}/{recipe.epochs}"
    training.listener.start(title, len(batches))
    saved = started = time.monotonic()
    pending = batches[position.step :]
    bounds = [training.world.bounds(len(batch)) for batch in pending]
    parts = [batch[start:stop] for batch, (start, stop) in zip(pending, bounds, strict=True)]
    items = ((position.epoch, int(i)) for part in parts for i in part)
    pixels = read_ahead(lambda item: _augmented(training, *item), items, ahead=4 * recipe.batch_size)
    for batch, part, (start, stop) in zip(pending, parts, bounds, strict=True):
        images = _read(training, pixels, len(part))
        labels = torch.tensor([training.train[i][1] for i in part])
        with WholeBatch(start, stop, len(batch)) if training.world.size > 1 else nullcontext():
            _step(training, torch.from_numpy(training.preprocessing.normalized(images)), labels, len(batches))
        now = time.monotonic()
        position.seconds, started = position.seconds + now - started, now
        training.listener.advance(position.step, _progress_note(position))
        if training.world.any(stopped.is_set()):
            pixels.close()  # type: ignore[attr-defined]
            training.world.agreed(training.save)
            raise InterruptedRun
        if now - saved > training.checkpoint_seconds:
            training.save()
            saved = now
    training.listener.finish()


def _read(training: Training, pixels: Iterator[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """The next pictures of this process, (count, H, W, C); where one cannot be read any more, the checkpoint is written
    before all processes stop."""
    try:
        return training.world.agreed(lambda: np.stack([next(pixels) for _ in range(count)]))
    except PeerLostError:
        raise  # the steps of the others are unknown
    except TaxonetError:
        training.save()
        raise


def _progress_note(position: Position) -> str:
    loss, right = position.loss_sum / position.seen, position.right / position.seen
    return f"loss {loss:.3f}  top-1 {right:.3f}  {position.seen / position.seconds:.0f} images/s"


def _augmented(training: Training, epoch: int, place: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([training.recipe.seed, epoch, place, 2])
    path = training.train[place][0].path
    try:
        picture = training.pictures.open(path)
    except ImageError as error:
        raise DataError(f"{path} could be read when the run began, and now cannot: {error}") from error
    return training.augment(picture, rng)


def set_training_mode(network: Network, recipe: Recipe) -> None:
    """Training mode; batch norm keeps and uses the statistics it came with where the recipe freezes them."""
    network.train()
    for norm in batch_norms(network):
        norm.momentum = recipe.norm_momentum
        norm.train(recipe.norm_statistics == "train")


def _step(training: Training, images: Tensor, labels: Tensor, steps: int) -> None:
    recipe, position = training.recipe, training.position
    seed = np.random.SeedSequence([recipe.seed, position.epoch, position.step, 3])
    torch.manual_seed(int(seed.generate_state(1, np.uint64)[0] >> 1))  # dropout
    rate = learning_rate(recipe, position.epoch + position.step / steps)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    world = training.world
    images = images.to(world.device).contiguous(memory_format=torch.channels_last)
    labels = labels.to(world.device)
    logits, auxiliary = training.network.forward_with_auxiliary(images)
    loss = F.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    total = loss  # the log keeps the loss of the logits alone, which validation has too
    for other in auxiliary:
        weight = training.network.auxiliary_weight
        total = total + weight * F.cross_entropy(other, labels, label_smoothing=recipe.label_smoothing)
    n = len(labels)
    figures = (total.item() * n, loss.item() * n, float((logits.argmax(1) == labels).sum()), float(n))
    total_sum, loss_sum, right, count = world.sums(figures)
    if not math.isfinite(total_sum):
        raise _diverged(training, f"the loss is {total_sum / count}")
    share = n / count  # 1 where there is one process: the loss is the mean over the global batch
    training.optimizer.zero_grad(set_to_none=True)
    (total * share if world.size > 1 else total).backward()  # type: ignore[no-untyped-call]
    own_statistics = not recipe.sync_norm and recipe.norm_statistics == "train"
    add_up_gradients(training.network, world, share, norms_differ=own_statistics)
    if recipe.agc:
        clip_adaptively(training.network, recipe.agc)
    training.optimizer.step()
    position.step += 1
    position.steps_in_all += 1
    if training.average:
        training.average.update(training.network, position.steps_in_all)
    position.loss_sum += loss_sum
    position.right += int(right)
    position.seen += int(count)


def _diverged(training: Training, what: str) -> TrainingError:
    epoch, rate = training.position.epoch + 1, training.recipe.lr
    return TrainingError(f"training diverged in epoch {epoch}: {what}; try a lower lr than {rate:g}")


def _finish_epoch(training: Training) -> Evaluation:
    position = training.position
    if not all(torch.isfinite(value).all() for value in training.result.state_dict().values()):
        raise _diverged(training, "the weights are not finite")
    training.listener.start(f"validation {position.epoch + 1}/{training.recipe.epochs}", len(training.val))
    classifier = training.classifier(training.result)
    try:
        evaluation = evaluate_samples(
            classifier, training.val, lambda done, _: training.listener.advance(done), world=training.world
        )
    except BundleError as error:  # weights that are finite but huge
        raise _diverged(training, str(error)) from error
    training.listener.finish()
    line = _log_line(training, evaluation)
    if training.world.first:
        with (training.run / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
            log.flush()
            os.fsync(log.fileno())  # before the checkpoint that counts this epoch
    training.position = Position(epoch=position.epoch + 1, steps_in_all=position.steps_in_all)
    training.save()
    training.listener.say(
        f"epoch {line['epoch']:>3}/{training.recipe.epochs}  loss {line['train_loss']:.3f}  "
        f"top-1 {line['train_top1']:.3f}  |  validation: loss {line['val_loss']:.3f}  top-1 {line['val_top1']:.3f}  "
        f"|  {line['images_per_second']:.0f} images/s, {line['seconds']:.0f} s"
    )
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
