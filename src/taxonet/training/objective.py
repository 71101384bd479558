"""The gradients of one step: the mean loss over a batch that may be taken in parts, so that it fits into memory."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxonet.errors import TrainingError
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.training.distillation import Teacher
from taxonet.training.distributed import WholeBatch
from taxonet.training.feed import Batch, Pixels, Views
from taxonet.training.losses import cross_entropy, distillation, picture_weights
from taxonet.training.mixing import Mix, one_hot
from taxonet.training.recipe import Recipe


@dataclass(frozen=True)
class Sums:
    """Over this process's pictures of a step: the loss that is minimised, the cross entropies without class weights and
    teacher, and the right answers."""

    total: float
    loss: float
    right: int


class Objective:
    """What a step minimises: cross entropy, weighed by class, and the distance from a teacher where there is one."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        preprocessing: Preprocessing,
        class_weights: Sequence[float] | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.network, self.recipe, self.preprocessing, self.teacher = network, recipe, preprocessing, teacher
        self.class_weights = (
            None if class_weights is None else torch.tensor(class_weights, device=network.classifier.weight.device)
        )
        forward = network.forward_with_auxiliary
        self.forward = torch.compile(forward) if recipe.compile else forward

    def backward(self, batch: Batch, splits: int = 1) -> Sums:
        """Add the gradients of the step's mean loss to the parameters, part by part, each divided by `splits` again.

        Without batch norm the gradients are those of the batch in one piece up to rounding; batch norm has the
        statistics of each piece.

        Raises:
            TrainingError: torch.compile cannot compile the network here.
        """
        total, loss, right = 0.0, 0.0, 0
        for part in batch.parts:
            rows = np.arange(part.start, part.stop)
            shared = len(rows) < part.whole
            for piece in np.array_split(rows, min(splits, part.least)):  # as many in every process
                first = part.first + int(piece[0]) - part.start
                with WholeBatch(first, first + len(piece), part.whole) if shared else nullcontext():
                    sums = self._piece(batch, piece)
                total, loss, right = total + sums.total, loss + sums.loss, right + sums.right
        return Sums(total, loss, right)

    def _piece(self, batch: Batch, rows: NDArray[np.int64]) -> Sums:
        own, other, mix = batch.own.take(rows), batch.other.take(rows) if batch.other else None, batch.mix
        device, classes = self.network.classifier.weight.device, self.network.classifier.out_features
        targets = one_hot(own.labels, classes)
        if mix and other:
            targets = mix.targets(targets, one_hot(other.labels, classes))
        targets = targets.to(device)
        with _precision(self.recipe.precision, device):
            images = self._pictures(own.pixels, other.pixels if other else None, self.preprocessing, mix)
            logits, auxiliary = self._run(images)
            teaching = self._teaching(own, other, mix, logits)
        plain = cross_entropy(logits, targets, self.recipe.label_smoothing)
        each = plain
        for head in auxiliary:
            weight = self.network.auxiliary_weight
            each = each + weight * cross_entropy(head, targets, self.recipe.label_smoothing)
        weights = picture_weights(targets, self.class_weights)
        share = self.recipe.distill_weight if self.teacher else 0.0
        total = (weights * ((1 - share) * each + share * teaching)).sum()  # sampling balances both terms too
        (total / batch.count).backward()  # type: ignore[no-untyped-call]
        right = int((logits.argmax(1) == targets.argmax(1)).sum())
        return Sums(total.item(), plain.detach().sum().item(), right)

    def _pictures(self, own: Pixels, other: Pixels | None, preprocessing: Preprocessing, mix: Mix | None) -> Tensor:
        images = torch.from_numpy(preprocessing.normalized(own))
        if mix and other is not None:
            images = mix.pictures(images, torch.from_numpy(preprocessing.normalized(other)))
        images = images.to(self.network.classifier.weight.device)
        return images.contiguous(memory_format=_memory_format(self.recipe))

    def _teaching(self, own: Views, other: Views | None, mix: Mix | None, logits: Tensor) -> Tensor | float:
        if self.teacher is None or own.for_teacher is None:
            return 0.0
        images = self._pictures(own.for_teacher, other.for_teacher if other else None, self.teacher.preprocessing, mix)
        return distillation(logits, self.teacher.logits(images), self.recipe.distill_temperature)

    def _run(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        try:
            return self.forward(images)
        except Exception as error:
            if self.recipe.compile and type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                reason = str(error).strip().splitlines()[0]
                raise TrainingError(f"torch.compile fails here ({reason}); train without --compile") from error
            raise


def _memory_format(recipe: Recipe) -> torch.memory_format:
    return torch.channels_last if recipe.channels_last else torch.contiguous_format


def _precision(word: str, device: torch.device) -> AbstractContextManager[object]:
    return torch.autocast(device.type, torch.bfloat16, enabled=word == "bfloat16")
