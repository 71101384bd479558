"""Residual attention: a second formulation with interpolation and pooling written out, the options, other sizes.

No other library has these networks in the form of the authors' prototxts, so there are no golden logits.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.networks.registry import find

INF = float("inf")


def line(small, large):
    """(large, small) weights that draw a line through `small` points; its first and last are the large one's."""
    matrix = torch.zeros(large, small, dtype=torch.float64)
    for i in range(large):
        place = i * (small - 1) / (large - 1) if large > 1 else 0.0
        left = min(int(place), small - 1)
        matrix[i, left] += 1 - (place - left)
        matrix[i, min(left + 1, small - 1)] += place - left
    return matrix


def enlarge(x, height, width):
    return line(x.shape[2], height) @ x @ line(x.shape[3], width).T


def pool(x):
    """The largest of each 3×3 window; a window that begins inside counts though it ends outside."""
    rows, columns = (math.ceil((side - 3) / 2) + 1 for side in x.shape[2:])
    x = F.pad(x, (0, 2 * columns + 1 - x.shape[3], 0, 2 * rows + 1 - x.shape[2]), value=-INF)
    shifted = [x[:, :, i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in range(3) for j in range(3)]
    return torch.stack([s[:, :, :rows, :columns] for s in shifted]).amax(0)


class WrittenOut:
    """The network over a state, in the order of the authors' prototxt; keys are ours."""

    def __init__(self, name, state):
        row = find(name).row
        self.state, self.preactivation, self.large = state, row["form"] == "preactivation", row["large"]
        self.modules, self.p, self.t, self.r = (row[k] for k in ("modules", "pre", "trunk", "mask"))

    def norm(self, x, key):
        mean, var, weight, bias = (
            self.state[f"{key}.{leaf}"][:, None, None] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def conv(self, x, key, stride=1, groups=1, norm=False):
        weight = self.state[f"{key}.weight"] if not norm else self.state[f"{key}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=groups)
        return self.norm(x, f"{key}.norm") if norm else x

    def unit(self, x, key, stride=1):
        if self.preactivation:
            active = self.norm(x, f"{key}.norm1").clamp(min=0)
            out = self.norm(self.conv(active, f"{key}.layers.conv1"), f"{key}.layers.norm2").clamp(min=0)
            out = self.norm(self.conv(out, f"{key}.layers.conv2", stride), f"{key}.layers.norm3").clamp(min=0)
            out = self.conv(out, f"{key}.layers.conv3")
            return out + (self.conv(active, f"{key}.project", stride) if f"{key}.project.weight" in self.state else x)
        out = self.conv(x, f"{key}.conv1", norm=True).clamp(min=0)
        out = self.conv(out, f"{key}.conv2", stride, groups=32, norm=True).clamp(min=0)
        out = self.conv(out, f"{key}.conv3", norm=True)
        if f"{key}.shortcut.conv.weight" in self.state:
            x = self.conv(x, f"{key}.shortcut", stride, norm=True)
        return (out + x).clamp(min=0)

    def units(self, x, key, count):
        for i in range(count):
            x = self.unit(x, f"{key}.{i}")
        return x

    def module(self, x, key, levels):
        x = self.units(x, f"{key}.pre", self.p)
        trunk = self.units(x, f"{key}.trunk", self.t)
        glass = [f"{key}.mask.hourglass{'.inner' * level}" for level in range(levels)]
        maps, way = [], x
        for level in range(levels):
            way = self.units(pool(way), f"{glass[level]}.down", self.r)
            maps.append(way)
        way = self.units(way, f"{glass[-1]}.up", self.r)
        for level in reversed(range(levels - 1)):
            way = enlarge(way, *maps[level].shape[2:]) + self.unit(maps[level], f"{glass[level]}.skip")
            way = self.units(way, f"{glass[level]}.up", self.r)
        way = enlarge(way, *trunk.shape[2:])
        if self.preactivation:
            way = self.norm(way, f"{key}.mask.head.norm").clamp(min=0)
        way = self.conv(way, f"{key}.mask.head.linear1", norm=True).clamp(min=0)
        mask = 1 / (1 + torch.exp(-self.conv(way, f"{key}.mask.head.linear2")))
        return self.units(trunk * (1 + mask), f"{key}.post", self.p)

    def __call__(self, x):
        stem = "body.stem"
        x = pool(self.conv(x, stem, 2, norm=True).clamp(min=0)) if self.large else self.conv(x, f"{stem}.conv")
        for number, count in enumerate(self.modules):
            x = self.unit(x, f"body.stage{number + 1}.transition", 2 if number else 1)
            for i in range(count):
                x = self.module(x, f"body.stage{number + 1}.attention{i + 1}", 3 - number)
            if not self.large:
                x = self.unit(x, f"body.stage{number + 1}.unit")
        if self.large:
            for i in range(3):
                x = self.unit(x, f"body.stage4.{i}", 1 if i else 2)
        if self.preactivation:
            x = self.norm(x, "body.norm.norm").clamp(min=0)
        return x.mean((2, 3)) @ self.state["classifier.weight"].T + self.state["classifier.bias"]


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("attention56", 64, 64),
        ("attention56", 72, 50),  # odd maps on the way: 18x13, 9x7
        ("attentionnext56", 64, 64),
        ("attention92_cifar", 32, 32),
        ("attention92_cifar", 27, 32),
        ("attention452_r2_cifar", 16, 16),  # two units before, four in the trunk, two between poolings
    ],
)
def test_the_network_equals_its_formulation_in_plain_functions(name, height, width):
    torch.manual_seed(0)
    network = randomised(create_model(name, num_classes=5)).eval().double()
    x = torch.randn(1, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        expected = WrittenOut(name, network.state_dict())(x)
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item())


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return randomised(create_model("attention56_cifar")).eval().body.stage3.attention1


@pytest.mark.parametrize("attention", ["residual", "naive"])
def test_a_closed_mask_is_an_identity_only_with_attention_residual_learning(attention, module):
    network = create_model("attention56_cifar", attention=attention).eval()
    other = network.body.stage3.attention1
    other.load_state_dict(module.state_dict(), strict=True)
    for weight in (other.mask.head.linear1.norm.weight, other.mask.head.linear1.norm.bias):
        weight.data.zero_()
    other.mask.head.linear1.norm.bias.data.fill_(1.0)
    other.mask.head.linear2.weight.data.fill_(-10.0)  # the sigmoid of -2560
    x = torch.randn(1, 256, 8, 8)
    with torch.no_grad():
        trunk = other.trunk(other.pre(x))
        expected = other.post(trunk if attention == "residual" else torch.zeros_like(trunk))
        assert torch.allclose(other(x), expected)


def test_activations_of_the_mask(module):
    head, x = module.mask.head, torch.randn(2, 256, 8, 8)
    with torch.no_grad():
        head.activation = "channel"
        raw = head(x)
        assert torch.allclose(raw.square().sum(1), torch.ones(2, 8, 8))  # unit length at every pixel
        head.activation = "spatial"
        logits = head(x).logit()
        assert torch.allclose(logits.mean((2, 3)), torch.zeros(2, 256), atol=1e-4)
        assert torch.allclose(logits.var((2, 3), unbiased=False), torch.ones(2, 256), rtol=1e-2)
        head.activation = "mixed"
        mixed = head(x)
    assert ((mixed > 0) & (mixed < 1)).all()
    assert torch.allclose(F.normalize(mixed.logit(), dim=1), raw, atol=1e-4)
    assert not torch.allclose(mixed, logits.sigmoid(), atol=1e-2)


@pytest.mark.parametrize("option", [{"activation": "channel"}, {"activation": "spatial"}, {"attention": "naive"}])
def test_options_change_the_function_and_not_the_weights(option):
    torch.manual_seed(0)
    plain = randomised(create_model("attention56_cifar")).eval()
    other = create_model("attention56_cifar", **option).eval()
    other.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.allclose(plain(x), other(x), rtol=1e-3)


@pytest.mark.parametrize(("name", "smallest"), [("attention56", 32), ("attentionnext56", 32), ("attention56_cifar", 8)])
def test_other_sizes_and_shapes(name, smallest):
    with torch.device("meta"):
        network = create_model(name, num_classes=7).eval()
        for height, width in ((smallest, smallest), (smallest + 5, 3 * smallest), (97, 64)):
            assert network(torch.zeros(1, 3, height, width)).shape == (1, 7)


@pytest.mark.parametrize(("name", "depth"), [("attention56", 56), ("attention92", 92), ("attention452_cifar", 452)])
def test_depth_is_that_of_the_longest_road_without_masks(name, depth):
    """Convolutions of stem, trunk and units around it, projections left out, and the classifier."""
    with torch.device("meta"):
        network = create_model(name)
    counted = [
        key
        for key, m in network.named_modules()
        if isinstance(m, torch.nn.Conv2d) and ".mask." not in key and not key.endswith("project")
    ]
    assert len(counted) + 1 == depth
