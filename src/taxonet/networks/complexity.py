"""What a network costs: parameters and multiply-adds, counted on the meta device without touching memory."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model


@dataclass(frozen=True)
class Complexity:
    """Trainable parameters, and multiply-adds of convolutions and linear layers for one image."""

    params: int
    macs: int


def count(network: nn.Module, height: int, width: int, channels: int = 3) -> Complexity:
    """The complexity of a network for one image; biases, norms, activations and pooling are not counted."""
    device = next(network.parameters()).device
    training = network.training
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, height, width, device=device))
    network.train(training)
    return Complexity(sum(p.numel() for p in network.parameters()), counter.get_total_flops() // 2)


@dataclass(frozen=True)
class StageCost:
    """What one stage costs, and the shape of what leaves it, without the batch; the last is called `head`."""

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int


def by_stage(network: Network, height: int, width: int, channels: int = 3) -> list[StageCost]:
    """The complexity of every stage and of the head, for one image; they add up to that of the network."""
    x = torch.zeros(1, channels, height, width, device=next(network.parameters()).device)
    training = network.training
    network.eval()
    costs: list[StageCost] = []
    with torch.no_grad():
        for name, stage in network.body.named_children():
            with FlopCounterMode(display=False) as counter:
                x = stage(x)
            params = sum(p.numel() for p in stage.parameters())
            costs.append(StageCost(name, tuple(x.shape[1:]), params, counter.get_total_flops() // 2))
        with FlopCounterMode(display=False) as counter:
            logits = network.forward_head(x)
    network.train(training)
    rest = sum(p.numel() for p in network.parameters()) - sum(cost.params for cost in costs)
    return [*costs, StageCost("head", tuple(logits.shape[1:]), rest, counter.get_total_flops() // 2)]


def complexity(name: str, input_size: int, in_channels: int = 3, **options: Any) -> Complexity:
    """The complexity of the network `name` at `input_size` × `input_size` pixels."""
    with torch.device("meta"):
        network = create_model(name, in_channels=in_channels, **options)
    return count(network, input_size, input_size, in_channels)
