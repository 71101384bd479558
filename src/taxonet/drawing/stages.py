"""One network as its stages: maps, size, blocks, and each stage's share of parameters and multiply-adds."""

import math

import torch
from torch import nn

from taxonet.drawing import svg
from taxonet.drawing.words import summary
from taxonet.networks.complexity import StageCost, by_stage
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model
from taxonet.sheets import VariantFacts

WIDTH, ROW, TOP = 890, 58, 78
SLAB = 70.0  # centre of the drawn maps
NAME, COST, BAR, NEXT = 140, 560, 110, 162


def draw_stages(variant: str, facts: VariantFacts) -> str:
    """The network `variant` at the sheet's input size, as SVG text."""
    with torch.device("meta"):
        network = create_model(variant, num_classes=facts.num_classes, in_channels=facts.channels)
    costs = by_stage(network, facts.input_size, facts.input_size, facts.channels)
    words = {name: summary(stage) for name, stage in network.body.named_children()}
    head = _head(network, costs[-2].shape[0])
    params, macs = sum(c.params for c in costs), sum(c.macs for c in costs)
    parts = [
        svg.text(24, 30, variant, 17, bold=True),
        svg.text(
            24,
            49,
            f"{params:,} parameters, {macs / 1e6:,.1f} M multiply-adds at {facts.input_size}×{facts.input_size}",
            12,
            fill=svg.FAINT,
        ),
        svg.text(COST, 49, "share of parameters", 11, fill=svg.FAINT),
        svg.text(COST + NEXT, 49, "of multiply-adds", 11, fill=svg.FAINT),
        svg.line([(24, 60), (WIDTH - 24, 60)], arrow=False, stroke=svg.RULE),
    ]
    rows = [StageCost("input", (facts.channels, facts.input_size, facts.input_size), 0, 0), *costs]
    largest = facts.input_size
    foot = 0.0
    for number, cost in enumerate(rows):
        y = TOP + number * ROW
        slab, half = _slab(cost, largest, y + ROW / 2 - 6)
        parts.append(slab)
        if number:
            parts.append(svg.line([(SLAB, foot), (SLAB, y + ROW / 2 - 6 - half)]))
        foot = y + ROW / 2 - 6 + half
        parts.append(svg.text(NAME, y + 20, cost.name, 13, bold=True))
        described = {"input": "photo", "head": head, **words}[cost.name]
        parts.append(svg.text(NAME, y + 37, _clipped(described, 62), 11.5, fill=svg.FAINT))
        parts.append(svg.text(COST - 24, y + 20, "×".join(map(str, cost.shape)), 12, anchor="end"))
        if cost.name != "input":
            parts += _bar(COST, y + 12, cost.params, params) + _bar(COST + NEXT, y + 12, cost.macs, macs)
    return svg.document(WIDTH, TOP + len(rows) * ROW + 8, f"The stages of {variant}", parts)


def _head(network: Network, maps: int) -> str:
    """What comes after the last map: pooling (or all of its pixels), hidden layers, dropout, the classifier."""
    ends = (network.body, network.dropout, network.classifier, network.auxiliary)
    inside = [m for child in network.children() if child not in ends for m in child.modules()]
    layers = [*(m for m in inside if isinstance(m, nn.Linear | nn.Dropout)), network.dropout, network.classifier]
    words = [
        f"linear {m.out_features}" if isinstance(m, nn.Linear) else "dropout"
        for m in layers
        if isinstance(m, nn.Linear) or m.p > 0
    ]
    first = next(m for m in layers if isinstance(m, nn.Linear))
    return ", ".join(("all pixels" if first.in_features > maps else "pooling", *words))


def _slab(cost: StageCost, largest: int, y: float) -> tuple[str, float]:
    """The maps: as wide as the logarithm of their side, as thick as that of their number; half the thickness."""
    side = cost.shape[1] if len(cost.shape) == 3 else 1
    width = 14 + 76 * math.log2(1 + side) / math.log2(1 + largest)
    thick = 4 + 3.2 * math.log2(1 + cost.shape[0])
    kind = "plain" if cost.name == "input" else "attention" if cost.name == "head" else "conv"
    return svg.box(SLAB - width / 2, y - thick / 2, width, thick, kind, radius=2), thick / 2


def _bar(x: float, y: float, part: int, whole: int) -> list[str]:
    share = part / whole if whole else 0.0
    bar = [svg.box(x, y, max(share * BAR, 1), 11, "grouped", radius=1)] if part else []
    return [*bar, svg.text(x + max(share * BAR, 1) + 6, y + 10, f"{share:.1%}", 10.5, fill=svg.FAINT)]


def _clipped(words: str, length: int) -> str:
    return words if len(words) <= length else words[: length - 1] + "…"
