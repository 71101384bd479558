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
        hint = nearest(path, [name for name in inside if name])
        blocks = ", ".join(name for name, _ in network.body.named_children())
        raise UsageError(f"{network.variant} has no module '{path}'{hint}; at the top there are {blocks}")
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


@dataclass
class _Edge:
    """A line from a step to one that takes from it, down a column of its own."""

    source: Step
    target: Step
    column: int
    sideways: bool = False  # it ends at the side of its target


def _columns(steps: list[Step], chains: list[list[Step]], rows: dict[int, int]) -> tuple[dict[int, int], list[_Edge]]:
    """The column of each step and of each edge; a cell is a row (even) or the gap below it (odd), and has one owner."""
    taken: set[tuple[int, int]] = set()
    columns: dict[int, int] = {}
    edges: list[_Edge] = []

    def claim(source: Step, target: Step, column: int | None = None) -> int:
        """The nearest column that is free from below `source` to above `target`, or beside it where roads meet."""
        cells = range(2 * rows[id(source)] + 1, 2 * rows[id(target)] + target.join)
        if column is None:
            nearest_first = sorted(range(-200, 201), key=lambda c: (abs(c), c < 0))
            column = next(c for c in nearest_first if all((cell, c) not in taken for cell in cells))
        taken.update((cell, column) for cell in cells)
        return column

    for number, chain in enumerate(chains):
        column = claim(chain[0], chain[-1], None if number else 0)
        if number == 0:
            taken.update({(0, 0), (2 * rows[id(chain[-1])], 0)})
        columns |= {id(step): column for step in chain if id(step) not in columns}
        edges += [_Edge(source, step, column) for source, step in pairwise(chain)]
    known = {(id(edge.source), id(edge.target)) for edge in edges}
    for step in steps:
        for source in step.inputs:
            if (id(source), id(step)) not in known:
                known.add((id(source), id(step)))
                adjacent = rows[id(source)] + 1 == rows[id(step)]
                edges.append(_Edge(source, step, columns[id(step)] if adjacent else claim(source, step)))
    return columns, edges


def _drawn(title: str, steps: list[Step]) -> str:
    rows = _rows(steps)
    columns, edges = _columns(steps, _chains(steps, rows), rows)
    places = {id(step): _Place(rows[id(step)], columns[id(step)]) for step in steps}
    for step in steps:
        place = places[id(step)]
        place.width = 26 if step.round else max(svg.text_width(words, SIZE) for words in step.lines) + 18
        place.height = 26 if step.round else LINE * len(step.lines) + 12
    centres, right = _centres(columns, edges, places)
    lanes = _Lanes(edges, places)
    heights = [max(places[id(s)].height for s in steps if rows[id(s)] == row) for row in range(max(rows.values()) + 1)]
    tops = [64.0]
    for row, height in enumerate(heights[:-1]):
        tops.append(tops[-1] + height + lanes.gap(row))
    for place in places.values():
        place.x, place.y = centres[place.column], tops[place.row] + heights[place.row] / 2
    parts = [svg.text(MARGIN, 30, title, 14, bold=True)]
    for edge in edges:
        leave, arrive = (tops[row] + heights[row] + lanes.below(row, key) for row, key in lanes.of(edge))
        parts.append(_line(edge, places, centres, leave, arrive))
    for step in steps:
        parts += _box(step, places[id(step)])
    first, last = places[id(steps[0])], places[id(steps[-1])]
    foot = last.y + last.height / 2
    parts.append(svg.text(first.x + first.width / 2 + 8, first.y + 4, _shape(steps[0]), 11, fill=svg.FAINT))
    parts.append(svg.line([(last.x, foot), (last.x, foot + 24)]))
    parts.append(svg.text(last.x, foot + 38, _shape(steps[-1]), 11, "middle", fill=svg.FAINT))
    width = max(right + MARGIN, svg.text_width(title, 14) + 2 * MARGIN, first.x + 120)
    return svg.document(width, foot + 38 + MARGIN, title, parts)


def _centres(columns: dict[int, int], edges: list[_Edge], places: dict[int, _Place]) -> tuple[dict[int, float], float]:
    """The middle of each column, and where the last one ends."""
    widths = dict.fromkeys({*columns.values(), *(edge.column for edge in edges)}, 14.0)
    for place in places.values():
        widths[place.column] = max(widths[place.column], place.width)
    centres, x = {}, float(MARGIN)
    for column in sorted(widths):
        centres[column] = x + widths[column] / 2
        x += widths[column] + 26
    return centres, x - 26


class _Lanes:
    """The heights, in the gaps between rows, of the level parts of edges: one a step that they leave or reach."""

    def __init__(self, edges: list[_Edge], places: dict[int, _Place]) -> None:
        self.places = places
        self.used: dict[int, list[tuple[str, int]]] = {}
        cells = {(place.row, place.column) for place in places.values()}
        for edge in edges:
            a, b = places[id(edge.source)], places[id(edge.target)]
            between = range(min(edge.column, b.column) + 1, max(edge.column, b.column))
            edge.sideways = (
                edge.target.join and edge.column != b.column and not any((b.row, column) in cells for column in between)
            )
            for row, key in self.of(edge):
                level = edge.column != (a.column if key[0] == "leave" else b.column)
                if level and not (edge.sideways and key[0] == "reach") and key not in self.used.setdefault(row, []):
                    self.used[row].append(key)
        for keys in self.used.values():
            keys.sort(key=lambda key: key[0])  # those that leave above those that reach

    def of(self, edge: _Edge) -> list[tuple[int, tuple[str, int]]]:
        """The gap (by the row above) and the lane's key for an edge's first and last level part."""
        a, b = self.places[id(edge.source)], self.places[id(edge.target)]
        return [(a.row, ("leave", id(edge.source))), (b.row - 1, ("reach", id(edge.target)))]

    def gap(self, row: int) -> float:
        """The height of the gap below a row."""
        return max(GAP, 11.0 * (len(self.used.get(row, ())) + 1))

    def below(self, row: int, key: tuple[str, int]) -> float:
        """How far below its row a lane runs."""
        keys = self.used.get(row, [])
        return self.gap(row) * ((keys.index(key) + 1) / (len(keys) + 1) if key in keys else 0.5)


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


def _line(edge: _Edge, places: dict[int, _Place], centres: dict[int, float], leave: float, reach: float) -> str:
    """From the foot of a step down the edge's column to the head of the other, or to its side where roads meet."""
    a, b, x = places[id(edge.source)], places[id(edge.target)], centres[edge.column]
    points = [(a.x, a.y + a.height / 2)]
    if x != a.x:
        points += [(a.x, leave), (x, leave)]
    if edge.sideways:
        points += [(x, b.y), (b.x + (b.width / 2 if x > b.x else -b.width / 2), b.y)]
    else:
        points += [(x, reach), (b.x, reach)] if x != b.x else []
        points.append((b.x, b.y - b.height / 2))
    return svg.line(points)
