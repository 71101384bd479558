"""One training step on several processes: the step of one process, divided.

The recipe's batch is the global batch. Each process computes its part of it, weighted by its share, and the gradients
are summed before the optimiser sees them; so the learning rate is the recipe's for any number of processes. With
`sync_norm` batch norm takes its statistics over the global batch, and dropout and stochastic depth draw for the global
batch and keep their part: the weights are those of one process, up to the rounding of sums.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from taxonet.errors import UsageError
from taxonet.networks.layers import Network, batch_norms
from taxonet.processes import World
from taxonet.training.feed import steps_of
from taxonet.training.recipe import Recipe

BUCKET = 2**23  # values in one message: what the copy of the gradients costs in memory stays bounded


class SharedNorm(nn.BatchNorm2d):
    """Batch norm over the pictures of all processes (torch's own takes no CPU); its state is `BatchNorm2d`'s."""

    world: World

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of this process's part of the batch → the same shape."""
        if not self.training:
            return super().forward(x)
        y, mean, var, count = _SharedNorm.apply(  # type: ignore[no-untyped-call]
            x, self.weight, self.bias, self.eps, self.world
        )
        with torch.no_grad():
            self._update(mean, var * count / (count - 1).clamp(min=1))
        out: Tensor = y
        return out

    def _update(self, mean: Tensor, unbiased: Tensor) -> None:
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1.0 / float(self.num_batches_tracked) if share is None else share
        if self.running_mean is not None and self.running_var is not None and share is not None:
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(unbiased, share)


class _SharedNorm(torch.autograd.Function):
    """Normalise by mean and variance over the pictures of all processes: parts are merged (Chan et al. 1983)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = x.new_tensor([float(x.numel() // x.shape[1])])
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        parts = torch.stack(world.gather_tensors(torch.cat([count, mean, var])))  # ranks, 1 + 2C
        counts, means, variances = parts[:, :1], parts[:, 1 : 1 + len(mean)], parts[:, 1 + len(mean) :]
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        y = F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), total)
        ctx.world, ctx.has_bias = world, bias is not None
        ctx.mark_non_differentiable(mean, var, total)
        return y, mean, var, total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, total = ctx.saved_tensors
        dy = gradients[0]
        normalised = (x - _wide(mean)) * _wide(scale)
        by_bias, by_weight = dy.sum((0, 2, 3)), (dy * normalised).sum((0, 2, 3))
        sums = torch.cat([by_bias, by_weight])
        ctx.world.add_up(sums)
        mean_dy, mean_dy_x = _wide(sums[: len(mean)] / total), _wide(sums[len(mean) :] / total)
        dx = (dy - mean_dy - normalised * mean_dy_x) * _wide(scale if weight is None else scale * weight)
        return dx, None if weight is None else by_weight, by_bias if ctx.has_bias else None, None, None


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None]


def share_norms(network: Network, world: World) -> None:
    """Let the batch norms of a network see the pictures of all processes; parameters and buffers stay theirs."""
    for norm in batch_norms(network) if world.size > 1 else ():
        norm.__class__ = SharedNorm
        norm.world = world  # type: ignore[assignment]


class WholeBatch(TorchFunctionMode):
    """Dropout and stochastic depth draw for the whole batch of `count` pictures, and keep the part `start` … `stop`."""

    def __init__(self, start: int, stop: int, count: int) -> None:
        super().__init__()
        self.start, self.stop, self.count = start, stop, count

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.dropout and self._is_drawn(*args, **kwargs):
            return self._dropout(*args, **kwargs)
        if function is torch.rand and args and isinstance(args[0], tuple) and args[0][0] == self.stop - self.start:
            return function((self.count, *args[0][1:]), **kwargs)[self.start : self.stop]
        return function(*args, **kwargs)

    @staticmethod
    def _is_drawn(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
        return training and p > 0

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        layout = torch.channels_last if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) else None
        whole = torch.empty(
            (self.count, *x.shape[1:]), dtype=x.dtype, device=x.device, memory_format=layout or torch.contiguous_format
        )
        kept = F.dropout(whole.fill_(1.0), p)[self.start : self.stop]
        return x.mul_(kept) if inplace else x * kept


def add_up_gradients(network: Network, world: World, share: float, norms_differ: bool) -> None:
    """Sum the gradients of all processes, each weighted already by its share of the batch.

    Where batch norm has seen only this process's pictures (`norms_differ`), its running statistics become the mean of
    all processes', weighted by `share`.
    """
    if world.size == 1:
        return
    tensors = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    if norms_differ:
        statistics = [
            b for norm in batch_norms(network) for b in (norm.running_mean, norm.running_var) if b is not None
        ]
        tensors += [statistic.mul_(share) for statistic in statistics]
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        world.add_up(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in bucket])
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def same_start(network: nn.Module, world: World) -> None:
    """Give every process the first one's weights: they are made alike, but a machine may round otherwise."""
    for value in network.state_dict().values() if world.size > 1 else ():
        whole = value.contiguous()
        world.broadcast(whole)
        value.copy_(whole)


def check_division(network: Network, recipe: Recipe, pictures: int, world: World) -> None:
    """Refuse more processes than the smallest batch of an epoch can be divided among.

    Batch norm on its own part needs two pictures a process.
    """
    batch = pictures // steps_of(recipe, pictures) // recipe.accumulate
    if recipe.compile:
        raise UsageError("compile works in one process, torch.compile does not see the others; leave --compile out")
    alone = bool(batch_norms(network)) and recipe.norm_statistics == "train" and not recipe.sync_norm
    least = world.size * (2 if alone else 1)
    if batch < least:
        why = " (two each, for batch norm without sync_norm)" if alone else ""
        raise UsageError(
            f"the smallest batch has {batch} pictures, {world.size} processes need {least}{why}; "
            "raise batch_size or start fewer processes"
        )


def division(recipe: Recipe, world: World) -> str:
    """How the work is divided, as a sentence for the start of a run."""
    start, stop = World(world.size - 1, world.size).bounds(recipe.batch_size)
    first = World(0, world.size).bounds(recipe.batch_size)[1]
    each = f"{first}" if stop - start == first else f"{stop - start} or {first}"
    norms = "of the whole batch" if recipe.sync_norm else "of each process's part, their means kept"
    frozen = recipe.norm_statistics == "frozen"
    return (
        f"processes: {world.size}, each takes {each} of the {recipe.batch_size} pictures of a batch; lr is the recipe's"
        + ("" if frozen else f"; batch norm: statistics {norms}")
        + f"; {torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''} each (OMP_NUM_THREADS)"
    )
