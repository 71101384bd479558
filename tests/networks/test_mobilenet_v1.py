"""MobileNet v1 with squeeze-and-excite and the comparison nets: a second formulation, and what the excitation costs."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.networks.layers import SqueezeExcite


def written_out(state, x, units):
    """The network in plain functions over a state: `units` in each of five stages (Table 1)."""

    def conv(x, key, stride, depthwise=False):
        weight = state[f"{key}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=len(weight) if depthwise else 1)
        mean, var, gain, bias = (
            state[f"{key}.norm.{leaf}"][:, None, None] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * gain + bias).clamp(min=0)

    x = conv(x, "body.stem", 2)
    for stage, count in enumerate(units, start=1):
        for number in range(count):
            key, stride = f"body.stage{stage}.{number}", 2 if stage > 1 and number == 0 else 1
            if f"{key}.conv.weight" in state:  # a full convolution
                x = conv(x, key, stride)
                continue
            x = conv(x, f"{key}.depthwise", stride, depthwise=True)
            x = conv(x, f"{key}.pointwise", 1)
            if f"{key}.se.reduce.weight" in state:
                hidden = (x.mean((2, 3)) @ state[f"{key}.se.reduce.weight"][:, :, 0, 0].T).clamp(min=0)
                x = x * (hidden @ state[f"{key}.se.expand.weight"][:, :, 0, 0].T).sigmoid()[:, :, None, None]
    return x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"]


@pytest.mark.parametrize(
    ("name", "units"),
    [
        ("mobilenet_v1_025", (1, 2, 2, 6, 2)),
        ("se_mobilenet_v1", (1, 2, 2, 6, 2)),
        ("mobilenet_v1_full", (1, 2, 2, 6, 2)),
        ("mobilenet_v1_shallow", (1, 2, 2, 1, 2)),
    ],
)
def test_the_network_equals_its_formulation_in_plain_functions(name, units):
    torch.manual_seed(0)
    network = randomised(create_model(name, num_classes=5)).eval().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(network.state_dict(), x, units)
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-12)


def test_the_excitation_is_a_sixteenth_of_every_pointwise_output_without_bias():
    with torch.device("meta"):
        plain, excited = create_model("mobilenet_v1"), create_model("se_mobilenet_v1")
    squeezes = [m for m in excited.modules() if isinstance(m, SqueezeExcite)]
    outputs = [64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    assert [m.reduce.in_channels for m in squeezes] == outputs
    assert all(m.reduce.bias is None and m.expand.bias is None for m in squeezes)
    count = lambda network: sum(p.numel() for p in network.parameters())  # noqa: E731
    assert count(excited) - count(plain) == sum(2 * c * c // 16 for c in outputs)
