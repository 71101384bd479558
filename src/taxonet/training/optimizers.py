"""Optimisers, parameter groups, and adaptive gradient clipping."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from taxonet.networks.layers import Network
from taxonet.training.recipe import Recipe

AGC_EPS = 1e-3  # a unit's norm counts as at least this, so that what starts at zero can move


class RMSpropTF(torch.optim.Optimizer):
    """RMSprop as TensorFlow computes it, for the recipes of the MobileNet and EfficientNet papers.

    The mean square starts at one, eps stands under the root, and the learning rate is inside the momentum buffer, so
    that a change of the rate does not reach into the past.
    """

    def __init__(
        self, params: Iterable[Any], lr: float, alpha: float, eps: float, momentum: float, weight_decay: float = 0.0
    ) -> None:
        defaults = {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step on the gradients as they are."""
        loss = closure() if closure else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["square_avg"] = torch.ones_like(parameter)
            state["momentum_buffer"] = torch.zeros_like(parameter)
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])  # an L2 term of the loss
        square, buffer = state["square_avg"], state["momentum_buffer"]
        square.mul_(group["alpha"]).addcmul_(gradient, gradient, value=1 - group["alpha"])
        step = gradient / (square + group["eps"]).sqrt_()
        buffer.mul_(group["momentum"]).add_(step, alpha=group["lr"])
        parameter.sub_(buffer)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters with weight decay and those without, as the recipe says of norms, biases and depthwise kernels.

    The gains of networks without norms go with the norms' scales and the biases.
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in network.modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        norm = isinstance(module, nn.BatchNorm2d)
        for name, parameter in module.named_parameters(recurse=False):
            spared = (norm or name == "bias" or name.endswith("gain")) and not recipe.decay_norm_and_bias
            spared = spared or (depthwise and not recipe.decay_depthwise)
            (free if spared else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the network's parameters."""
    groups = parameter_groups(network, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)
    if recipe.optimizer == "rmsprop_tf":
        return RMSpropTF(groups, recipe.lr, recipe.alpha, recipe.eps, recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.lr, eps=recipe.eps)


@torch.no_grad()
def clip_adaptively(network: Network, clipping: float) -> None:
    """Adaptive gradient clipping: a unit's gradient gets at most `clipping` times the norm of the unit's weights
    (Brock et al. 2021, arXiv 2102.06171, §4).

    A unit is an output map of a convolution, a row of a linear layer, or a whole bias or gain. The classifier's matrix
    alone is left out; its bias is clipped with the other biases, as in the authors' code.
    """
    for parameter in network.parameters():
        if parameter.grad is None or parameter is network.classifier.weight:
            continue
        norm = _unit_norms(parameter.grad)
        most = clipping * _unit_norms(parameter).clamp(min=AGC_EPS)
        parameter.grad.mul_(torch.where(norm > most, most / norm.clamp(min=1e-6), 1.0))


def _unit_norms(x: Tensor) -> Tensor:
    """The norm of every unit, shaped to multiply `x`; gains of shape (C, 1, 1, 1) are vectors, one unit."""
    one = x.squeeze().ndim <= 1
    norms: Tensor = torch.linalg.vector_norm(x, dim=None if one else tuple(range(1, x.ndim)), keepdim=True)
    return norms
