"""ShuffleNet v1: a second formulation with groups written out, the shuffle's reach, the scaled stems."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.networks.layers import SqueezeExcite
from taxonet.networks.shufflenet_v1 import ShuffleUnit


def written_out(state, x, groups):
    """ShuffleNet v1 in plain functions over a state: a grouped convolution is one of each slice of the maps."""

    def norm(x, prefix):
        return F.batch_norm(
            x, *[state[f"{prefix}.norm.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
        )

    def pointwise(x, prefix, parts):
        weights = state[f"{prefix}.conv.weight"].chunk(parts)
        slices = x.chunk(parts, 1)
        return norm(torch.cat([F.conv2d(s, w) for s, w in zip(slices, weights, strict=True)], 1), prefix)

    x = norm(F.conv2d(x, state["body.stem.conv.weight"], None, 2, 1), "body.stem").clamp(min=0)
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, repeats in ((1, 4), (2, 8), (3, 4)):
        for number in range(repeats):
            prefix, stride = f"body.stage{stage}.{number}", 1 if number else 2
            out = pointwise(x, f"{prefix}.reduce", 1 if stage == 1 and number == 0 else groups).clamp(min=0)
            per_group = out.shape[1] // groups
            out = torch.stack([out[:, g * per_group + i] for i in range(per_group) for g in range(groups)], 1)
            depthwise = state[f"{prefix}.layers.depthwise.conv.weight"]
            out = norm(
                F.conv2d(out, depthwise, None, stride, 1, groups=len(depthwise)),
                f"{prefix}.layers.depthwise",
            )
            out = pointwise(out, f"{prefix}.layers.expand", groups)
            if f"{prefix}.layers.se.reduce.weight" in state:
                squeezed = F.conv2d(out.mean((2, 3), keepdim=True), state[f"{prefix}.layers.se.reduce.weight"])
                out = out * F.conv2d(squeezed.clamp(min=0), state[f"{prefix}.layers.se.expand.weight"]).sigmoid()
            out = torch.cat((F.avg_pool2d(x, 3, 2, 1), out), 1) if stride == 2 else x + out
            x = out.clamp(min=0)  # as in Figure 2c, after the concatenation
    return F.linear(x.mean((2, 3)), state["classifier.weight"], state["classifier.bias"])


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("shufflenet_v1_g3_x0_5", 3),
        ("shufflenet_v1_g8_x0_25", 8),
        ("shufflenet_v1_g4_x0_25", 4),
        ("se_shufflenet_v1_g3_x1_0", 3),
    ],
)
def test_the_network_equals_its_formulation_in_plain_functions(name, groups):
    torch.manual_seed(0)
    network = randomised(create_model(name, num_classes=5)).eval().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(network(x), written_out(network.state_dict(), x, groups), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("shuffle", "reached"), [(True, 3), (False, 1)])
def test_the_shuffle_lets_the_groups_see_each_other(shuffle, reached):
    """How many of three groups of a unit's input reach the first output map of its branch."""
    torch.manual_seed(0)
    unit = ShuffleUnit(36, 36, stride=1, groups=3, first=False, squeeze=False, shuffle=shuffle).double().eval()
    unit.reduce.norm.bias.data.fill_(100.0)  # no ReLU is off
    unit.layers.expand.norm.bias.data.fill_(1e6)
    x = torch.randn(1, 36, 3, 3, dtype=torch.float64, requires_grad=True)
    unit(x)[0, 1].sum().backward()
    seen = [bool(x.grad[0, group].abs().sum() > 1e-12) for group in (slice(2, 12), slice(12, 24), slice(24, 36))]
    assert sum(seen) == reached


def test_shuffle_is_an_option_that_keeps_the_weights():
    plain = randomised(create_model("shufflenet_v1_g3_x0_5", num_classes=3)).eval()
    other = create_model("shufflenet_v1_g3_x0_5", num_classes=3, shuffle=False).eval()
    other.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(plain(x), other(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "maps"),
    [("g3_x0_25", 6), ("g8_x0_25", 8), ("g3_x0_5", 12), ("g8_x0_5", 16), ("g3_x1_5", 24), ("g8_x2_0", 48)],
)
def test_stems_of_the_scaled_networks(name, maps):
    with torch.device("meta"):
        assert create_model(f"shufflenet_v1_{name}").body.stem.conv.out_channels == maps


def test_the_first_pointwise_convolution_is_not_grouped():
    with torch.device("meta"):
        units = [m for m in create_model("shufflenet_v1_g3_x1_0").modules() if isinstance(m, ShuffleUnit)]
    assert [unit.reduce.conv.groups for unit in units] == [1] + [3] * 15
    assert {unit.layers.expand.conv.groups for unit in units} == {3}


def test_squeeze_and_excite_is_a_sixteenth_of_the_branch_without_bias():
    with torch.device("meta"):
        network = create_model("se_shufflenet_v1_g3_x1_0")
    squeezes = [m for m in network.modules() if isinstance(m, SqueezeExcite)]
    assert [m.reduce.out_channels for m in squeezes] == [13, 15, 15, 15, 15] + [30] * 7 + [30] + [60] * 3
    assert all(m.reduce.bias is None and m.expand.bias is None for m in squeezes)
