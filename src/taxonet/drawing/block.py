"""One block of a network as a diagram, read off the module itself."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from taxonet.drawing import svg
from taxonet.drawing.graph import Step, trace
from taxonet.errors import UsageError, nearest
from taxonet.networks.layers import Network
from taxonet.networks.registry import create_model
from taxonet.sheets import VariantFacts

SIZE, LINE, GAP, MARGIN = 12, 16, 30, 24  # letters, a line of text, between the rows, around the drawing


def draw_block(variant: str, facts: VariantFacts, path: str) -> str:
    """The module `path` (such as `stage2.0`) of the network `variant` as SVG text.

    Raises:
        UsageError: the network has no such module, it does not take one map, or it cannot be traced.
    """
    with torch.device("meta"):
        network = create_model(variant, num_classes=facts.num_classes, in_channels=facts.channels).eval()
    module, shape = _module_and_input(network, facts, path)
    steps = trace(module, shape)
    return _drawn(f"{variant} · {path} · {type(module).__name__}", steps)


def _module_and_input(network: Network, facts: VariantFacts, path: str) -> tuple[nn.Module, tuple[int, ...]]:
    inside = dict(network.body.named_modules())
    if path not in inside or not path:
        raise UsageError(f"{network.variant} has no module '{path}'{nearest(path, [name for name in inside if name])}")
    seen: list[torch.Tensor] = []

    def note(_: nn.Module, arguments: tuple[object, ...]) -> None:
        seen.extend(a for a in arguments if isinstance(a, torch.Tensor))

    handle = inside[path].register_forward_pre_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, facts.channels, facts.input_size, facts.input_size, device="meta"))
    handle.remove()
    if not seen or seen[0].ndim != 4:
        raise UsageError(f"'{path}' of {network.variant} does not take one map; draw what is around it")
    return inside[path], tuple(seen[0].shape[1:])


@dataclass
class _Place:
    row: int
    column: int
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


def _rows(steps: list[Step]) -> dict[int, int]:
    """The row of each step: below all that it takes from."""
    rows: dict[int, int] = {}
    for step in steps:
        rows[id(step)] = 1 + max((rows[id(source)] for source in step.inputs), default=-1)
    return rows


def _chains(steps: list[Step], rows: dict[int, int]) -> list[list[Step]]:
    """The graph as roads, the longest first; every further road begins and ends at a step that is on one already."""
    users: dict[int, list[Step]] = {id(step): [] for step in steps}
    for step in steps:
        for source in step.inputs:
            users[id(source)].append(step)
    longest: dict[int, list[Step]] = {}
    for step in steps:
        before = max((longest[id(s)] for s in step.inputs), key=len, default=[])
        longest[id(step)] = [*before, step]
    main = longest[id(steps[-1])]
    chains, placed = [main], {id(step) for step in main}
    for step in steps:
        if id(step) in placed:
            continue
        road = [step]
        while id(road[0]) not in placed and road[0].inputs:
            road.insert(0, max(road[0].inputs, key=lambda s: (id(s) not in placed, rows[id(s)])))
        while id(road[-1]) not in placed and users[id(road[-1])]:
            road.append(min(users[id(road[-1])], key=lambda s: (id(s) in placed, rows[id(s)])))
        chains.append(road)
        placed |= {id(s) for s in road}
    return chains


def _columns(
    steps: list[Step], chains: list[list[Step]], rows: dict[int, int]
) -> tuple[dict[int, int], list[tuple[Step, Step, int]]]:
    """The column of each step, and every edge with the column in which it runs; nothing crosses a step's cell."""
    taken: set[tuple[int, int]] = set()
    columns: dict[int, int] = {}
    edges: list[tuple[Step, Step, int]] = []

    def free(first: int, last: int) -> int:
        for column in sorted(range(-12, 13), key=lambda c: (abs(c), c < 0)):
            if all((row, column) not in taken for row in range(first, last + 1)):
                return column
        return 13

    for number, chain in enumerate(chains):
        inner = [step for step in chain if id(step) not in columns]
        first, last = rows[id(chain[0])] + (number > 0), rows[id(chain[-1])] - (number > 0)
        column = 0 if number == 0 else free(first, last)
        taken |= {(row, column) for row in range(first, last + 1)}
        columns |= {id(step): column for step in inner}
        edges += [(source, step, column) for source, step in pairwise(chain)]
    known = {(id(source), id(step)) for source, step, _ in edges}
    for step in steps:
        for source in step.inputs:
            if (id(source), id(step)) in known:
                continue
            known.add((id(source), id(step)))
            first, last = rows[id(source)] + 1, rows[id(step)] - 1
            column = free(first, last + step.join) if first <= last else columns[id(step)]
            taken |= {(row, column) for row in range(first, last + 1)}
            edges.append((source, step, column))
    return columns, edges


def _drawn(title: str, steps: list[Step]) -> str:
    rows = _rows(steps)
    columns, edges = _columns(steps, _chains(steps, rows), rows)
    places = {id(step): _Place(rows[id(step)], columns[id(step)]) for step in steps}
    for step in steps:
        place = places[id(step)]
        place.width = 26 if step.round else max(svg.text_width(words, SIZE) for words in step.lines) + 18
        place.height = 26 if step.round else LINE * len(step.lines) + 12
    widths = {
        column: max((places[id(s)].width for s in steps if columns[id(s)] == column), default=0.0)
        for column in {*columns.values(), *(c for *_, c in edges)}
    }
    centres, x = {}, float(MARGIN)
    for column in sorted(widths):
        width = max(widths[column], 14)
        centres[column] = x + width / 2
        x += width + 26
    heights = [max(places[id(s)].height for s in steps if rows[id(s)] == row) for row in range(max(rows.values()) + 1)]
    tops = [64 + sum(heights[:row]) + GAP * row for row in range(len(heights))]
    for place in places.values():
        place.x, place.y = centres[place.column], tops[place.row] + heights[place.row] / 2
    parts = [svg.text(MARGIN, 30, title, 14, bold=True)]
    cells = {(place.row, place.x) for place in places.values()}
    for a, b, column in edges:
        source, target, way = places[id(a)], places[id(b)], centres[column]
        between = any(row == target.row and min(way, target.x) < other < max(way, target.x) for row, other in cells)
        parts.append(_edge(source, target, way, tops, heights, b.join and not between))
    for step in steps:
        parts += _box(step, places[id(step)])
    first, last = places[id(steps[0])], places[id(steps[-1])]
    foot = last.y + last.height / 2
    parts.append(svg.text(first.x + first.width / 2 + 8, first.y + 4, _shape(steps[0]), 11, fill=svg.FAINT))
    parts.append(svg.line([(last.x, foot), (last.x, foot + 24)]))
    parts.append(svg.text(last.x, foot + 38, _shape(steps[-1]), 11, "middle", fill=svg.FAINT))
    width = max(x - 26 + MARGIN, svg.text_width(title, 14) + 2 * MARGIN, first.x + 120)
    return svg.document(width, foot + 38 + MARGIN, title, parts)


def _shape(step: Step) -> str:
    return "×".join(map(str, step.shape))


def _box(step: Step, place: _Place) -> list[str]:
    left, top = place.x - place.width / 2, place.y - place.height / 2
    if step.round:
        parts = [svg.circle(place.x, place.y, 13, "join"), svg.text(place.x, place.y + 5, step.lines[0], 15, "middle")]
    else:
        parts = [svg.box(left, top, place.width, place.height, step.kind)]
        for number, words in enumerate(step.lines):
            parts.append(svg.text(place.x, top + 6 + LINE * number + SIZE, words, SIZE, "middle"))
    return parts


def _edge(a: _Place, b: _Place, x: float, tops: list[float], heights: list[float], sideways: bool) -> str:
    """From the foot of `a` down the column at `x` to the head of `b`, or to its side where roads meet."""
    start, end = (a.x, a.y + a.height / 2), (b.x, b.y - b.height / 2)
    leave = tops[a.row] + heights[a.row] + GAP * 0.35
    arrive = tops[b.row] - GAP * 0.45
    if x == a.x == b.x:
        return svg.line([start, end])
    if sideways and x != b.x:
        side = b.x + (b.width / 2 if x > b.x else -b.width / 2)
        return svg.line([start, (a.x, leave), (x, leave), (x, b.y), (side, b.y)])
    return svg.line([start, (a.x, leave), (x, leave), (x, arrive), (b.x, arrive), end])
