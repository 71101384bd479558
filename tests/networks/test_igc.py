"""Interleaved group convolutions as plain matrix products, the rule of their width, and how the nets are wired."""

import doctest
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.errors import UsageError
from taxonet.networks import create_model, interleaving
from taxonet.networks.interleaving import (
    InterleavedGroupConv,
    Partition,
    cheapest_groups,
    complementary,
    widest,
    width_rule,
)
from taxonet.networks.layers import Style, batch_norms

STYLE = Style(norm_eps=2e-5)


def block_diagonal(weight, groups):
    """The grouped convolution's weight (out, in/groups, k, k) as (out, in, k, k), zero outside of its groups."""
    return torch.stack([torch.block_diag(*plane.chunk(groups)) for plane in weight.flatten(2).unbind(-1)], -1)


def primary_to_secondary(primary, maps):
    """Pᵀ of the paper, from its words: the m-th secondary group is the m-th map of each primary group."""
    matrix = torch.zeros(primary * maps, primary * maps, dtype=torch.float64)
    for m, group in itertools.product(range(maps), range(primary)):
        matrix[m * primary + group, group * maps + m] = 1
    return matrix


def norm(module, x):
    shape = (1, -1, 1, 1)
    x = (x - module.running_mean.view(shape)) / torch.sqrt(module.running_var.view(shape) + 2e-5)
    return x * module.weight.view(shape) + module.bias.view(shape)


@pytest.mark.parametrize(
    ("c_in", "c_out", "primary", "stride"),
    [(12, 12, 3, 1), (12, 24, 3, 2), (12, 24, 6, 1), (10, 10, 5, 1), (6, 6, 6, 1), (6, 6, 1, 1)],
)
def test_a_block_is_one_dense_product_at_every_pixel(c_in, c_out, primary, stride):
    """P·W_d·Pᵀ·W_p on the 3×3 neighbourhood of each pixel, in the order of the primary groups."""
    maps = c_out // primary
    block = InterleavedGroupConv(c_in, c_out, (primary, maps), stride=stride, style=STYLE).double()
    block = randomised(block).eval()
    x = torch.randn(2, c_in, 7, 6, dtype=torch.float64)
    permute = primary_to_secondary(primary, maps)
    mix = permute.T @ block_diagonal(block.convs[1].weight, maps)[..., 0] @ permute
    spatial = block_diagonal(block.convs[0].weight, primary)  # c_out, c_in, 9
    dense = torch.einsum("ij,jkt->ikt", mix, spatial).flatten(1)  # one kernel, c_out × 9·c_in
    expected = dense @ F.unfold(x, 3, padding=1, stride=stride)
    expected = expected.view(2, c_out, math.ceil(7 / stride), math.ceil(6 / stride))
    expected = norm(block.norm, expected).clamp(min=0)
    with torch.no_grad():
        assert torch.allclose(block(x), expected, rtol=1e-10, atol=1e-12)


def test_the_dense_kernel_of_a_block_has_no_zero():
    block = InterleavedGroupConv(12, 12, (3, 4), style=STYLE)
    kernel = block_diagonal(block.convs[1].weight, 4)[..., 0] @ primary_to_secondary(3, 4).float()
    kernel = kernel @ block_diagonal(block.convs[0].weight, 3)[..., 4]
    assert (kernel != 0).all()


def paths(channels, groups):
    """How many ways lead from each map to each map through convolutions of ones, by the block itself."""
    block = InterleavedGroupConv(channels, channels, groups, style=STYLE, act=False).double()
    block.norm = torch.nn.Identity()
    for conv in block.convs:
        torch.nn.init.zeros_(conv.weight)
        middle = conv.kernel_size[0] // 2
        conv.weight.data[:, :, middle, middle] = 1
    with torch.no_grad():
        return block(torch.eye(channels, dtype=torch.float64).view(channels, channels, 1, 1)).flatten(1).T


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        (32, (4, 8)),
        (64, (64, 8, 8)),
        (12, (12, 4, 6, 6)),
        (64, (8, 8)),
        (64, (64, 8, 4)),
        (64, (64, 8, 16)),
        (12, (6,)),
    ],
)
def test_complementary_means_one_path_between_any_two_maps(channels, groups):
    counted = paths(channels, groups)
    assert complementary(channels, groups) == bool((counted == 1).all())


def test_groups_that_do_not_divide_the_maps_are_not_complementary():
    assert not complementary(10, (4, 2))


@pytest.mark.parametrize("groups", [(4, 8), (24, 2), (64, 8, 8), (12, 4, 6, 6)])
def test_the_shuffles_of_a_complementary_block_restore_the_order_of_the_primary_groups(groups):
    channels = round(math.prod(groups) ** (1 / (len(groups) - 1)))  # what the condition says of the groups
    assert complementary(channels, groups)
    x = torch.arange(float(channels)).view(1, channels, 1, 1)
    shuffled = x
    for g in groups:
        shuffled = interleaving.channel_shuffle(shuffled, g)
    assert torch.equal(shuffled, x)


def test_the_shuffles_of_the_authors_widening_block_do_not():
    block = create_model("igc_l4m8_20_ident").body.stage2[0].conv1  # 4 groups of 16 maps, then 8 of 8
    assert not complementary(64, block.groups)
    counted = paths(64, block.groups)
    assert not (counted == 1).all()
    assert (counted.sum(1) == 16 * 8).all()  # twice the paths of the paper's form


# --- the rule of the width


def test_the_examples_of_the_documentation_hold():
    assert doctest.testmod(interleaving).failed == 0
    assert doctest.testmod(interleaving).attempted >= 8


@pytest.mark.parametrize(("primary", "secondary", "kernel"), [(24, 2, 3), (4, 8, 3), (1, 5, 3), (7, 1, 3), (5, 3, 5)])
def test_parameters_of_a_partition_are_those_of_the_convolutions(primary, secondary, kernel):
    partition = Partition(primary, secondary, kernel)
    width = partition.width
    spatial = torch.nn.Conv2d(width, width, kernel, groups=primary, bias=False)
    mixing = torch.nn.Conv2d(width, width, 1, groups=secondary, bias=False)
    assert partition.parameters == spatial.weight.numel() + mixing.weight.numel()
    assert partition.regular_width**2 * kernel**2 == pytest.approx(partition.parameters)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_block_is_wider_than_the_regular_convolution_of_its_cost_exactly_where_the_rule_says(kernel):
    for primary, secondary in itertools.product(range(1, 40), range(1, 20)):
        partition = Partition(primary, secondary, kernel)
        assert partition.wider == (partition.width**2 * kernel**2 > partition.parameters), partition


@pytest.mark.parametrize(("budget", "kernel"), [(1, 3), (10, 3), (11, 3), (2304, 3), (2916, 3), (5000, 5), (999, 1)])
def test_width_rule_finds_what_brute_force_finds(budget, kernel):
    def cost(primary, maps):
        return primary * maps**2 * kernel**2 + maps * primary**2

    expected = {
        (primary, maps)
        for primary in range(1, budget + 1)
        for maps in range(1, math.isqrt(budget) + 1)
        if cost(primary, maps) <= budget < min(cost(primary + 1, maps), cost(primary, maps + 1))
    }
    found = width_rule(budget, kernel)
    assert {(p.primary, p.secondary) for p in found} == expected
    assert len(found) == len(expected)
    widths = [p.width for p in found]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize("budget", [500, 2304, 9 * 64 * 64])
def test_no_choice_is_wider_than_the_optimum_and_the_widest_has_about_its_groups(budget):
    primary, secondary, width = widest(budget)
    assert primary == pytest.approx(9 * secondary)
    assert primary * secondary**2 * 9 + secondary * primary**2 == pytest.approx(budget)
    best = width_rule(budget)[0]
    assert 0.9 * width < best.width <= width
    assert best.secondary in (math.floor(secondary), math.ceil(secondary))


@pytest.mark.parametrize(("channels", "layers"), [(64, 3), (64, 2), (48, 2), (36, 3), (60, 4), (7, 2), (16, 1)])
def test_cheapest_groups_are_those_of_a_full_search(channels, layers):
    def cost(groups):
        return channels * (9 * channels // groups[0] + sum(channels // g for g in groups[1:]))

    candidates = itertools.product([g for g in range(1, channels + 1) if channels % g == 0], repeat=layers)
    expected = min(cost(groups) for groups in candidates if complementary(channels, groups))
    found = cheapest_groups(channels, layers)
    assert complementary(channels, found)
    assert cost(found) == expected


@pytest.mark.parametrize("call", [lambda: width_rule(0), lambda: width_rule(9, 0), lambda: cheapest_groups(8, 0)])
def test_budgets_and_layers_start_at_one(call):
    with pytest.raises(UsageError, match="at least"):
        call()


# --- the nets


def test_a_block_alone_has_its_partition_in_the_net():
    block = create_model("igc_l24m2_20_ident").body.stage1[1].conv2
    assert [conv.groups for conv in block.convs] == [24, 2]
    assert [conv.kernel_size for conv in block.convs] == [(3, 3), (1, 1)]
    assert sum(p.numel() for p in block.convs.parameters()) == Partition(24, 2).parameters


@pytest.mark.parametrize(("secondary", "expected"), [("authors", [8, 16, 16, 16]), ("paper", [16, 16, 16, 16])])
def test_secondary_groups_of_a_widening_unit(secondary, expected):
    stage = create_model("igc_l4m8_20_ident", secondary=secondary).body.stage2
    found = [block.convs[1].groups for unit in (stage[0], stage[1]) for block in (unit.conv1, unit.conv2)]
    assert found == expected


def test_the_large_nets_have_the_groups_of_the_paper_unless_told_otherwise():
    with torch.device("meta"):
        groups = [
            create_model("igc_l16m32_20_ident", **options).body.stage2[0].conv1.convs[1].groups
            for options in ({}, {"secondary": "authors"})
        ]
    assert groups == [64, 32]


def test_secondary_is_an_option_of_the_nets_in_which_paper_and_code_differ():
    for name in ("igc_l4m8_20", "regconv_w16_20_ident", "igc_l4m32_imagenet"):
        with pytest.raises(UsageError, match="has no option 'secondary'"):
            create_model(name, secondary="paper")


@pytest.mark.parametrize(
    ("name", "primary", "secondary"),
    [("igc_l4m32_imagenet", [4] * 4, [32, 64, 128, 256]), ("igc_l100m2_imagenet", [100, 200, 400, 800], [2] * 4)],
)
def test_what_doubles_on_imagenet(name, primary, secondary):
    with torch.device("meta"):
        body = create_model(name).body
    units = [getattr(body, f"stage{i}")[0] for i in range(1, 5)]
    assert [unit.conv1.convs[0].groups for unit in units] == primary
    assert [unit.conv1.convs[1].groups for unit in units] == secondary
    projected = [unit.shortcut.conv.groups for unit in units if hasattr(unit.shortcut, "conv")]
    assert projected == primary[4 - len(projected) :]
    assert len(projected) == (4 if "l100" in name else 3)


@pytest.mark.parametrize("name", ["igc_l4m8_8_ident", "igc_l24m2_8", "regconv_w16_8_ident"])
def test_a_net_is_what_its_parts_are(name):
    """The whole net again from its weights, with functional calls and no module of ours."""
    network = randomised(create_model(name)).double().eval()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def layer(part, x, stride):
        if hasattr(part, "conv"):
            return norm(part.norm, F.conv2d(x, part.conv.weight, stride=stride, padding=1))
        first, second = part.convs
        out = F.conv2d(x, first.weight, stride=stride, padding=1, groups=first.groups)
        out = out.unflatten(1, (first.groups, -1)).transpose(1, 2).flatten(1, 2)
        out = F.conv2d(out, second.weight, groups=second.groups)
        return norm(part.norm, out.unflatten(1, (second.groups, -1)).transpose(1, 2).flatten(1, 2))

    out = layer(network.body.stem, x, 1).relu()
    for number, stage in enumerate(list(network.body.children())[1:]):
        for i, part in enumerate(stage):
            stride = 2 if number and i == 0 else 1
            if not hasattr(part, "shortcut"):
                out = layer(part, out, stride).relu()
                continue
            way = part.shortcut
            branch = layer(part.conv2, layer(part.conv1, out, stride).relu(), 1)
            if stride == 2:
                out = norm(way.norm, F.conv2d(out, way.conv.weight, stride=2, groups=way.conv.groups))
            out = (branch + out).relu()
    expected = F.linear(out.mean((2, 3)), network.classifier.weight, network.classifier.bias)
    with torch.no_grad():
        assert torch.allclose(network(x), expected, rtol=1e-10, atol=1e-12)


def test_batch_norm_and_initialisation_are_the_authors():
    torch.manual_seed(0)
    plain, identity = create_model("igc_l4m8_8"), create_model("igc_l4m8_8_ident")
    assert {(n.eps, n.momentum) for n in batch_norms(plain)} == {(2e-5, 0.01)}
    assert {(n.eps, n.momentum) for n in batch_norms(identity)} == {(2e-5, 0.1)}
    primary, mixing = plain.body.stage3[1].convs  # 32 maps a group of 3×3, 4 of 1×1
    assert primary.weight.std().item() == pytest.approx(math.sqrt(2 / (32 * 9)), rel=0.05)
    assert mixing.weight.std().item() == pytest.approx(math.sqrt(2 / 4), rel=0.1)
    assert plain.classifier.weight.abs().max().item() == pytest.approx(1 / math.sqrt(128), rel=0.02)
    assert not plain.classifier.bias.any()
