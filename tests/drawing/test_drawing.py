"""Drawings say what the network is: every step is there, lines lead from a step to the next, nothing overlaps."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
import torch
from torch import nn

from taxonet import draw
from taxonet.drawing.graph import trace
from taxonet.errors import UsageError
from taxonet.networks import create_model
from taxonet.networks.complexity import by_stage, complexity
from taxonet.networks.layers import channel_shuffle

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


def boxes(svg):
    """The boxes that stand for steps: the paper is the first rectangle."""
    rectangles = list(ET.fromstring(svg).iter(f"{SVG}rect"))[1:]
    return [tuple(float(r.get(key)) for key in ("x", "y", "width", "height")) for r in rectangles]


def test_stages_are_named_sized_and_weighed():
    svg = draw("resnet50")
    words = texts(svg)
    assert [w for w in words if re.fullmatch(r"input|stem|stage\d|head", w)] == [
        "input", "stem", "stage1", "stage2", "stage3", "stage4", "head",
    ]  # fmt: skip
    assert {"3×224×224", "64×56×56", "2048×7×7", "3 × Bottleneck", "6 × Bottleneck"} <= set(words)
    assert "25,557,032 parameters, 4,089.2 M multiply-adds at 224×224" in words
    shares = [float(w.rstrip("%")) for w in words if re.fullmatch(r"\d+\.\d%", w)]
    assert sum(shares) == pytest.approx(200, abs=0.6)  # parameters and multiply-adds


@pytest.mark.parametrize("name", ["densenet_bc_22_12", "mobilenet_v3_small", "senet154", "shufflenet_v2_x0_5"])
def test_the_stages_cost_what_the_network_costs(name):
    with torch.device("meta"):
        network = create_model(name)
    size = 32 if name.startswith("densenet") else 224
    costs, whole = by_stage(network, size, size), complexity(name, size)
    assert sum(cost.params for cost in costs) == whole.params
    assert sum(cost.macs for cost in costs) == whole.macs
    assert [cost.name for cost in costs][:-1] == [name for name, _ in network.body.named_children()]


def test_a_projected_bottleneck():
    words = texts(draw("resnet50", "stage2.0"))
    assert words[0] == "resnet50 · stage2.0 · Bottleneck"
    assert {"1×1 conv, 128", "3×3 conv /2, 128", "1×1 conv, 512", "1×1 conv /2, 512", "+", "512×28×28"} <= set(words)
    assert words.count("BN") == 4


def test_a_dense_block_joins_all_that_came_before():
    svg = draw("densenet_bc_22_12", "block1")
    words = texts(svg)
    assert words.count("concat") == 4  # one before each of three layers, one at the end
    lines = list(ET.fromstring(svg).iter(f"{SVG}polyline"))
    assert len(lines) == (1 + 2 + 3 + 4) + 3 * 2 + 1  # into the joins, through the layers, out


BLOCKS = [
    ("densenet_bc_22_12", "block2"),
    ("densenet_40_12", "block1"),
    ("preresnet50", "stage2.0"),
    ("seresnet50", "stage1.0"),
    ("shufflenet_v1_g3_x1_0", "stage2.0"),
    ("shufflenet_v2_x1_0", "stage2.1"),
    ("mobilenet_v3_large", "stage4"),
    ("dpn92", "stage2.0"),
    ("googlenet", "inception4a"),
    ("bn_inception", "inception3c"),
    ("attention92", "stage1.attention1"),
    ("nfnet_f0", "stage2.0"),
]


@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_boxes_do_not_overlap_and_stay_on_the_paper(name, block):
    svg = draw(name, block)
    root = ET.fromstring(svg)
    found = boxes(svg)
    for x, y, width, height in found:
        assert x >= 0
        assert y >= 0
        assert x + width <= float(root.get("width"))
        assert y + height <= float(root.get("height"))
    for i, (x, y, width, height) in enumerate(found):
        for left, top, wide, high in found[i + 1 :]:
            assert x + width <= left or left + wide <= x or y + height <= top or top + high <= y


def segments(svg):
    """The straight parts of every line, with where the line begins and ends."""
    for line in ET.fromstring(svg).iter(f"{SVG}polyline"):
        points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        yield from ((points[0], points[-1], *part) for part in pairwise(points))


@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_lines_of_different_steps_do_not_lie_on_each_other(name, block):
    found = list(segments(draw(name, block)))
    for i, (start, end, a, b) in enumerate(found):
        for other_start, other_end, c, d in found[i + 1 :]:
            if start == other_start or end == other_end:
                continue
            for along, across in ((0, 1), (1, 0)):
                if a[across] == b[across] == c[across] == d[across]:
                    shared = min(max(a[along], b[along]), max(c[along], d[along]))
                    assert shared <= max(min(a[along], b[along]), min(c[along], d[along])) + 0.5


@pytest.mark.parametrize(("name", "block"), BLOCKS)
def test_lines_do_not_run_behind_boxes(name, block):
    svg = draw(name, block)
    for _, _, (x1, y1), (x2, y2) in segments(svg):
        for left, top, width, height in boxes(svg):
            crosses = min(x1, x2) < left + width - 1 and max(x1, x2) > left + 1
            assert not (crosses and min(y1, y2) < top + height - 1 and max(y1, y2) > top + 1)


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.side = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return channel_shuffle(torch.relu(self.conv(x)), 2) * torch.sigmoid(self.side(x)) + x


def test_a_trace_has_the_steps_and_their_inputs():
    steps = trace(Odd().to("meta"), (8, 6, 6))
    by_words = {" ".join(step.lines): step for step in steps}
    assert list(by_words) == [
        "input", "3×3 conv, 8, 2 groups ReLU", "channel shuffle, 2 groups", "1×1 conv, 8 sigmoid", "×", "+",
    ]  # fmt: skip
    assert by_words["×"].inputs == [by_words["channel shuffle, 2 groups"], by_words["1×1 conv, 8 sigmoid"]]
    assert by_words["+"].inputs == [by_words["×"], by_words["input"]]
    assert steps[-1].shape == (8, 6, 6)


class Choosy(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x


def test_a_road_that_depends_on_the_values_is_refused_in_a_sentence():
    with pytest.raises(UsageError, match="a Choosy cannot be drawn"):
        trace(Choosy(), (3, 8, 8))


@pytest.mark.parametrize(
    ("block", "sentence"),
    [
        ("stge2.0", "resnet50 has no module 'stge2.0'; did you mean 'stage2.0'"),
        ("", "resnet50 has no module ''; at the top there are stem, stage1, stage2, stage3, stage4"),
    ],
)
def test_an_unknown_block_is_refused(block, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        draw("resnet50", block)
