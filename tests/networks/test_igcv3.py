"""IGCV3's unit as plain matrix products, its widths, and weights of pytorchcv."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_igc import block_diagonal, norm
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.networks.igcv3 import expanded_width, scaled
from taxonet.networks.layers import InvertedResidual, Style
from taxonet.weights.conversion import convert


@pytest.fixture(scope="module")
def small():
    return randomised(create_model("igcv3_d_025")).eval()


@pytest.mark.parametrize(("c_in", "c_out", "expansion", "stride"), [(4, 4, 6, 1), (4, 6, 6, 2), (8, 6, 1, 1)])
def test_a_unit_is_dense_products_around_a_filter_for_each_map(c_in, c_out, expansion, stride):
    hidden = expansion * c_in
    unit = InvertedResidual(c_in, c_out, hidden=hidden, stride=stride, groups=2, style=Style(norm_eps=2e-5)).double()
    unit = randomised(unit).eval()
    expand, depthwise, project = unit.layers.expand, unit.layers.depthwise, unit.layers.project
    x = torch.randn(2, c_in, 6, 5, dtype=torch.float64)
    wide = norm(expand.norm, torch.einsum("ij,njhw->nihw", block_diagonal(expand.conv.weight, 2)[..., 0], x))
    half = hidden // 2
    wide = wide[:, [i // 2 + (i % 2) * half for i in range(hidden)]]  # one map of each half in turn
    patches = F.unfold(wide, 3, padding=1, stride=stride).unflatten(1, (hidden, 9))
    filtered = torch.einsum("ck,nckp->ncp", depthwise.conv.weight.flatten(1), patches)
    filtered = norm(depthwise.norm, filtered.unflatten(2, (6 // stride, -1))).clamp(0, 6)
    expected = torch.einsum("ij,njhw->nihw", block_diagonal(project.conv.weight, 2)[..., 0], filtered)
    expected = norm(project.norm, expected)
    if c_in == c_out and stride == 1:
        expected = expected + x
    with torch.no_grad():
        assert torch.allclose(unit(x), expected, rtol=1e-10, atol=1e-12)


def test_each_map_of_a_unit_sees_every_map_before_it():
    """The loose complementary condition: both halves before the unit meet both halves after it."""
    unit = InvertedResidual(4, 4, hidden=24, groups=2, style=Style(), skip=False).double().eval()
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    for channel in range(4):
        (gradient,) = torch.autograd.grad(unit(x)[0, channel, 1, 1], x)
        assert (gradient.abs().amax((0, 2, 3)) > 0).all()


def test_the_expansion_is_linear_and_always_there(small):
    blocks = [m for m in small.modules() if isinstance(m, InvertedResidual)]
    assert len(blocks) == 32
    parts = ["expand", "shuffle", "depthwise", "project"]
    assert all([name for name, _ in block.layers.named_children()] == parts for block in blocks)
    assert all(not hasattr(block.layers.expand, "act") for block in blocks)
    assert [block.layers.expand.conv.groups for block in blocks] == [2] * 32
    assert sum(block.residual for block in blocks) == 32 - 7


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(24, 0.7, 18), (16, 0.7, 12), (64, 1.4, 90), (32, 1.4, 46)]
)
def test_widths_are_rounded_and_even(channels, width, expected):
    assert scaled(channels, width) == expected


def test_the_authors_multiply_the_width_of_an_expansion_twice():
    assert expanded_width(18, 0.7) == 19  # round(12.6) is odd
    with torch.device("meta"):
        paper, authors = (create_model("igcv3_d_070", scaling=form) for form in ("paper", "authors"))
        assert create_model("igcv3_d_140").num_features == 1793  # one more than 1.4 · 1280, the authors' oddity
        assert create_model("igcv3_d_070").num_features == 1280
    hidden = [[unit.layers.expand.norm.num_features for unit in net.body.stage3[:2]] for net in (paper, authors)]
    assert hidden == [[6 * 18, 6 * 22], [6 * 19, 6 * 22]]


def test_the_cifar_net_keeps_its_map_to_4_pixels():
    maps = create_model("igcv3_d_cifar").eval().stages(torch.zeros(1, 3, 32, 32))
    assert [m.shape[2] for m in maps.values()] == [32, 32, 16, 8, 4, 4]


def test_weights_of_pytorchcv_are_known_by_their_names(small):
    """The names are built here from the rows of pytorchcv's constructor, not by our layout."""
    rows = {1: 1, 2: 4, 3: 6, 4: 14, 5: 7}
    theirs = ["features.init_block"]
    theirs += [
        f"features.stage{s}.unit{u}.conv{c}" for s, n in rows.items() for u in range(1, n + 1) for c in (1, 2, 3)
    ]
    theirs.append("features.final_block")
    own = small.state_dict()
    tensors = iter(own.items())
    state = {}
    for block in theirs:
        for leaf in (
            "conv.weight",
            "bn.weight",
            "bn.bias",
            "bn.running_mean",
            "bn.running_var",
            "bn.num_batches_tracked",
        ):
            key, tensor = next(tensors)
            assert key.endswith(leaf.partition(".")[2])
            state[f"{block}.{leaf}"] = tensor
    state["output.weight"], state["output.bias"] = (tensor for _, tensor in tensors)
    layout, renamed = convert(state, small, "igcv3")
    assert layout == "pytorchcv"
    assert all(torch.equal(renamed[key], tensor) for key, tensor in own.items())
