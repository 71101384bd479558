"""Optimisers and parameter groups."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from taxonet.training.recipe import Recipe


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
    """Parameters with weight decay and those without, as the recipe says of norms, biases and depthwise kernels."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in network.modules():
        depthwise = isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1
        norm = isinstance(module, nn.BatchNorm2d)
        for name, parameter in module.named_parameters(recurse=False):
            spared = (norm or name == "bias") and not recipe.decay_norm_and_bias
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
