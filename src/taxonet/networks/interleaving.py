"""Interleaved group convolutions: the block that IGC's networks stack, and the arithmetic by which one chooses it.

A block is a product of group convolutions with shuffles between: of the primary, a 3×3 in L groups of M maps, and of
the secondary, a 1×1 in M groups of L maps, one from each primary group (IGCV1, arXiv 1707.02725); or of a channel-wise
3×3 and several 1×1 (IGCV2, 1804.06202). Together they connect every input map with every output map.

>>> choice = width_rule(9 * 64 * 64)[0]  # the widest block that costs no more than a regular 3×3 of 64 maps
>>> choice.primary, choice.secondary, choice.width, choice.parameters
(55, 6, 330, 35970)
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch.nn.functional as F
from torch import Tensor, nn

from taxonet.errors import UsageError
from taxonet.networks.layers import Style, channel_shuffle, conv2d


class InterleavedGroupConv(nn.Module):
    """A 3×3 in `groups[0]` groups, then a 1×1 for each further number of groups, a shuffle after each; norm (→ ReLU).

    `groups=(L, M)` is IGCV1's block; `(64, 8, 8)` IGCV2's for 64 maps. Where `complementary` holds, the shuffles
    multiply to the identity: the maps leave in the order of the primary groups.
    """

    def __init__(
        self, c_in: int, c_out: int, groups: Sequence[int], *, stride: int = 1, style: Style, act: bool = True
    ) -> None:
        super().__init__()
        primary, *others = groups
        self.convs = nn.ModuleList([conv2d(c_in, c_out, 3, stride, primary)])
        self.convs.extend(conv2d(c_out, c_out, 1, groups=g) for g in others)
        self.norm = style.norm(c_out)
        self.groups, self.act = tuple(groups), act

    def forward(self, x: Tensor) -> Tensor:
        """(N, c_in, H, W) → (N, c_out, ⌈H/stride⌉, ⌈W/stride⌉)."""
        for conv, groups in zip(self.convs, self.groups, strict=True):  # neither norm nor ReLU between them
            x = channel_shuffle(conv(x), groups)
        x = self.norm(x)
        return F.relu(x) if self.act else x


@dataclass(frozen=True)
class Partition:
    """An IGCV1 block of `primary` (L) spatial groups and `secondary` (M) point-wise groups, as many maps in as out.

    >>> block = Partition(24, 2)
    >>> block.width, block.parameters, round(block.regular_width, 1), block.wider
    (48, 2016, 15.0, True)
    """

    primary: int
    secondary: int
    kernel: int = 3

    @property
    def width(self) -> int:
        """Maps of the block: G = L·M."""
        return self.primary * self.secondary

    @property
    def parameters(self) -> int:
        """Weights of both convolutions, which are the multiply-adds for a pixel: L·M²·S + M·L²."""
        return self.width * (self.secondary * self.kernel**2 + self.primary)

    @property
    def regular_width(self) -> float:
        """Maps C of the regular convolution that costs the same: C²·S."""
        return math.sqrt(self.parameters / self.kernel**2)

    @property
    def wider(self) -> bool:
        """Whether the block is wider than the regular convolution of its cost: L/(L − 1) < M·S."""
        return self.primary < self.secondary * self.kernel**2 * (self.primary - 1)


def width_rule(parameters: int, kernel: int = 3) -> list[Partition]:
    """The IGC blocks that use up a budget of `parameters`, the widest first.

    They are those which exceed it with one primary or one secondary group more. A regular k×k convolution of C maps has
    k²·C² parameters. The widest has about L = S·M (`widest`); the paper's accuracy peaks near it, not at it.

    >>> [(p.primary, p.secondary, p.width) for p in width_rule(9 * 16 * 16)[:3]]
    [(26, 2, 52), (17, 3, 51), (12, 4, 48)]

    Raises:
        UsageError: a budget or a kernel below 1.
    """
    if not isinstance(parameters, int) or not isinstance(kernel, int) or parameters < 1 or kernel < 1:
        raise UsageError(
            f"the budget is {parameters!r} parameters with kernel {kernel!r}, both must be whole numbers and at least 1"
        )
    area = kernel**2
    found = []
    for primary in range(1, math.isqrt(parameters) + 1):
        if Partition(primary, 1, kernel).parameters > parameters:
            break
        # the largest M with L·S·M² + L²·M within the budget
        root = math.isqrt(primary**4 + 4 * primary * area * parameters)
        choice = Partition(primary, (root - primary**2) // (2 * primary * area), kernel)
        if Partition(primary + 1, choice.secondary, kernel).parameters > parameters:
            found.append(choice)
    return sorted(found, key=lambda p: (-p.width, p.parameters))


def widest(parameters: float, kernel: int = 3) -> tuple[float, float, float]:
    """L, M and width at the optimum L = S·M, where they need not be whole: no block of this cost is wider.

    >>> tuple(round(x, 2) for x in widest(9 * 16 * 16))
    (21.81, 2.42, 52.83)
    """
    area = kernel**2
    secondary = (parameters / (2 * area**2)) ** (1 / 3)
    return area * secondary, secondary, area * secondary**2


def complementary(channels: int, groups: Sequence[int]) -> bool:
    """Whether group convolutions with shuffles between join each input map to each output map by exactly one path.

    So it is when their maps a group multiply to the number of maps (IGCV2).

    >>> complementary(64, (64, 8, 8)), complementary(64, (64, 8, 4))
    (True, False)
    """
    return all(channels % g == 0 for g in groups) and math.prod(channels // g for g in groups) == channels


def cheapest_groups(channels: int, layers: int, kernel: int = 3) -> tuple[int, ...]:
    """The complementary `groups` of `layers` convolutions, a k×k and then 1×1, that have the fewest parameters.

    Where the numbers allow, the products S·K₁ = K₂ = K₃ … are equal (the balance condition).

    >>> cheapest_groups(64, 3), cheapest_groups(64, 2)
    ((64, 8, 8), (32, 2))

    Raises:
        UsageError: fewer than one layer or map.
    """
    if layers < 1 or channels < 1:
        raise UsageError(f"there are {layers} layers of {channels} maps, it must be at least one of each")

    def weights_of_a_map(maps: tuple[int, ...]) -> int:
        return kernel**2 * maps[0] + sum(maps[1:])

    return tuple(channels // k for k in min(_factorizations(channels, layers), key=weights_of_a_map))


@cache
def _divisors(number: int) -> tuple[int, ...]:
    return tuple(d for d in range(1, number + 1) if number % d == 0)


def _factorizations(number: int, length: int) -> Iterator[tuple[int, ...]]:
    if length == 1:
        yield (number,)
        return
    for first in _divisors(number):
        for rest in _factorizations(number // first, length - 1):
            yield (first, *rest)
