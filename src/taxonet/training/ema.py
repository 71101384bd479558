"""An exponential moving average of a network's weights."""

import copy

import torch

from taxonet.networks.layers import Network


class MovingAverage:
    """The averaged copy of a network; statistics of batch norm are averaged like weights."""

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self.network.requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: Network, step: int) -> None:
        """Move towards `network` after its step number `step` (from 1); early on the average follows faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        source = network.state_dict()
        for key, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(source[key], 1 - decay)
            else:
                average.copy_(source[key])
