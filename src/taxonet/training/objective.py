"""The gradients of one step: the mean loss over a batch that may be taken in parts, so that it fits into memory."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxonet.errors import TrainingError
from taxonet.images import Preprocessing
from taxonet.networks.layers import Network
from taxonet.training.distillation import Teacher
from taxonet.training.losses import cross_entropy, distillation, picture_weights
from taxonet.training.mixing import Mix, one_hot
from taxonet.training.recipe import Recipe

Pixels = NDArray[np.uint8]


class NotFiniteError(ArithmeticError):
    """The loss is NaN or infinite."""


@dataclass(frozen=True)
class Batch:
    """The augmented pictures (N, H, W, C) of one step, as the student and as the teacher sees them, and labels (N,)."""

    pixels: Pixels
    labels: Tensor
    for_teacher: Pixels | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Sums:
    """Over a batch: the sum of cross entropies, without class weights and teacher, and the number of right answers."""

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
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)
        forward = network.forward_with_auxiliary
        self.forward = torch.compile(forward) if recipe.compile else forward

    def backward(self, batch: Batch, mix: Mix | None, parts: int) -> Sums:
        """Add the gradients of the batch's mean loss to the parameters, taking the batch in `parts`.

        Without batch norm the gradients are those of the batch in one piece up to rounding; batch norm has the
        statistics of each part.

        Raises:
            NotFiniteError: the loss is NaN or infinite.
            TrainingError: torch.compile cannot compile the network here.
        """
        loss, right = 0.0, 0
        for rows in np.array_split(np.arange(len(batch)), min(parts, len(batch))):
            sums = self._part(batch, mix, rows)
            loss, right = loss + sums.loss, right + sums.right
        return Sums(loss, right)

    def _part(self, batch: Batch, mix: Mix | None, rows: NDArray[np.int64]) -> Sums:
        device = self.network.classifier.weight.device
        targets = one_hot(batch.labels, self.network.classifier.out_features)
        targets = mix.targets(targets[rows], targets[mix.partner[rows]]) if mix else targets[rows]
        targets = targets.to(device)
        with _precision(self.recipe.precision, device):
            logits, auxiliary = self._run(self._pictures(batch.pixels, self.preprocessing, mix, rows))
            teaching = self._teaching(batch, mix, rows, logits)
        plain = cross_entropy(logits, targets, self.recipe.label_smoothing)
        each = plain
        for other in auxiliary:
            weight = self.network.auxiliary_weight
            each = each + weight * cross_entropy(other, targets, self.recipe.label_smoothing)
        weights = picture_weights(targets, self.class_weights)
        share = self.recipe.distill_weight if self.teacher else 0.0
        total = ((1 - share) * weights * each + share * teaching).sum() / len(batch)
        if not torch.isfinite(total):
            raise NotFiniteError(f"the loss is {total.item()}")
        total.backward()  # type: ignore[no-untyped-call]
        return Sums(plain.detach().sum().item(), int((logits.argmax(1) == targets.argmax(1)).sum()))

    def _pictures(
        self, pixels: Pixels, preprocessing: Preprocessing, mix: Mix | None, rows: NDArray[np.int64]
    ) -> Tensor:
        images = torch.from_numpy(preprocessing.normalized(pixels[rows]))
        if mix:
            images = mix.pictures(images, torch.from_numpy(preprocessing.normalized(pixels[mix.partner[rows]])))
        images = images.to(self.network.classifier.weight.device)
        return images.contiguous(memory_format=_memory_format(self.recipe))

    def _teaching(self, batch: Batch, mix: Mix | None, rows: NDArray[np.int64], logits: Tensor) -> Tensor | float:
        if self.teacher is None or batch.for_teacher is None:
            return 0.0
        images = self._pictures(batch.for_teacher, self.teacher.preprocessing, mix, rows)
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
