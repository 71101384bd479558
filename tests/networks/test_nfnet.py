"""NFNet: weight standardisation and the block against a second formulation in NumPy, the scale of the signal."""

import math

import numpy as np
import pytest
import torch

from taxonet.networks import create_model
from taxonet.networks.layers import StochasticDepth
from taxonet.networks.nfnet import NFBlock, ScaledGelu, StandardizedConv2d

GAIN = 1.7015043497085571


# --- the second formulation: plain NumPy in float64


def gelu(x, form):
    if form == "tanh":
        return GAIN * 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return GAIN * 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def standardized(weight, gain, form):
    """One kernel at a time: less its mean, over the root of its sum of squares (fan-in × variance)."""
    out = np.empty_like(weight)
    for i, kernel in enumerate(weight):
        centred = kernel - kernel.mean()
        squares = (centred**2).sum()
        squares = max(squares, 1e-4) if form == "floor" else squares + 1e-5 * kernel.size
        out[i] = gain[i].item() * centred / math.sqrt(squares)
    return out


def convolution(x, module, form, stride=1):
    """A SAME convolution as a sum over the places of the kernel and over the groups."""
    state = {key: value.detach().numpy() for key, value in module.named_parameters()}
    weight = standardized(state["weight"], state["gain"], form)
    n, c_in, height, width = x.shape
    c_out, per_group, k, _ = weight.shape
    rows, columns = -(-height // stride), -(-width // stride)
    below, right = (max((out - 1) * stride + k - side, 0) for out, side in ((rows, height), (columns, width)))
    padded = np.pad(x, ((0, 0), (0, 0), (below // 2, below - below // 2), (right // 2, right - right // 2)))
    out = np.zeros((n, c_out, rows, columns))
    groups = c_in // per_group
    for g in range(groups):
        maps = padded[:, g * per_group : (g + 1) * per_group]
        kernels = slice(g * c_out // groups, (g + 1) * c_out // groups)
        for i in range(k):
            for j in range(k):
                seen = maps[:, :, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
                out[:, kernels] += np.einsum("nchw,oc->nohw", seen, weight[kernels, :, i, j])
    return out + state["bias"].reshape(1, -1, 1, 1)


def excitation(x, squeeze):
    layers = [squeeze.reduce, squeeze.expand]
    (w1, b1), (w2, b2) = ((m.weight.detach().numpy()[:, :, 0, 0], m.bias.detach().numpy()) for m in layers)
    hidden = np.maximum(x.mean((2, 3)) @ w1.T + b1, 0)
    return 1 / (1 + np.exp(-(hidden @ w2.T + b2)))[:, :, None, None]


def average_of_two_by_two(x):
    """The windows over the right and lower edge average the pixels that they have."""
    n, c, height, width = x.shape
    out = np.empty((n, c, -(-height // 2), -(-width // 2)))
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            out[:, :, i, j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3))
    return out


def block_written_out(block, x, stride, expected_std, gelu_form, eps_form):
    out = gelu(x, gelu_form) / expected_std
    shortcut = x
    if block.project is not None:
        pooled = average_of_two_by_two(out) if stride == 2 else out
        shortcut = convolution(pooled, block.project.conv, eps_form)
    out = convolution(out, block.reduce, eps_form)
    out = convolution(gelu(out, gelu_form), block.grouped1, eps_form, stride)
    out = convolution(gelu(out, gelu_form), block.grouped2, eps_form)
    out = convolution(gelu(out, gelu_form), block.expand, eps_form)
    out = 2 * excitation(out, block.squeeze) * out
    return out * block.skipinit_gain.item() * 0.2 + shortcut


def shaken(module, seed=0):
    """Every parameter off its initial value, in float64."""
    generator = torch.Generator().manual_seed(seed)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            shift = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.3 * shift * (parameter.abs().mean() + 0.2))
    return module.eval()


# --- weight standardisation


@pytest.mark.parametrize("form", ["floor", "added"])
@pytest.mark.parametrize(("c_in", "c_out", "kernel", "groups"), [(6, 4, 3, 2), (5, 7, 1, 1), (3, 16, 3, 1)])
def test_weight_standardisation(form, c_in, c_out, kernel, groups):
    conv = shaken(StandardizedConv2d(c_in, c_out, kernel, groups=groups, std_eps=form))
    with torch.no_grad():
        conv.weight[1] *= 1e-4  # below the floor
        conv.weight[2] = 0.7  # no variance at all
        found = conv.standardized().numpy()
    expected = standardized(conv.weight.detach().numpy(), conv.gain.detach().numpy(), form)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert np.abs(found[2]).max() < 1e-6


def test_a_standardized_kernel_keeps_the_scale_of_its_input():
    conv = StandardizedConv2d(64, 32, 3, std_eps="floor")
    kernels = conv.standardized().flatten(1)
    assert torch.allclose(kernels.mean(1), torch.zeros(32), atol=1e-7)
    assert torch.allclose(kernels.square().sum(1), torch.ones(32), atol=1e-5)


@pytest.mark.parametrize("form", ["tanh", "exact"])
def test_gelu_is_the_form_asked_for(form):
    x = np.linspace(-5, 5, 101)
    np.testing.assert_allclose(ScaledGelu(form)(torch.from_numpy(x)).numpy(), gelu(x, form), rtol=1e-9, atol=1e-12)


def test_gelu_keeps_variance_one():
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    assert ScaledGelu("exact")(x).var().item() == pytest.approx(1, abs=0.01)


# --- the block


@pytest.mark.parametrize(("gelu_form", "eps_form"), [("tanh", "floor"), ("exact", "added")])
@pytest.mark.parametrize(("c_in", "c_out", "stride"), [(256, 256, 1), (128, 256, 1), (256, 512, 2), (512, 512, 2)])
def test_a_block_equals_its_formulation_in_numpy(gelu_form, eps_form, c_in, c_out, stride):
    torch.manual_seed(0)
    block = NFBlock(c_in, c_out, stride, expected_std=1.3, drop_path=0.2, gelu=gelu_form, std_eps=eps_form)
    shaken(block)
    x = np.random.default_rng(0).normal(size=(2, c_in, 5, 4))
    with torch.no_grad():
        found = block(torch.from_numpy(x)).numpy()
    assert block.skipinit_gain.item() != 0
    np.testing.assert_allclose(found, block_written_out(block, x, stride, 1.3, gelu_form, eps_form), rtol=1e-8)


def test_a_fresh_block_passes_its_input():
    block = NFBlock(256, 256, 1, expected_std=1.2, drop_path=0.0, gelu="tanh", std_eps="floor")
    x = torch.randn(2, 256, 4, 4)
    assert torch.equal(block(x), x)


def test_what_each_block_divides_by():
    """A stage starts from the variance that the one before has built up; its second block sees 1 + α²."""
    with torch.device("meta"):
        blocks = [m for m in create_model("nfnet_f0").modules() if isinstance(m, NFBlock)]
    variances = [1, 1.04, 1.04, 1.08, 1.04, 1.08, 1.12, 1.16, 1.20, 1.24, 1.04, 1.08]
    assert [block.beta**-2 for block in blocks] == pytest.approx(variances)


@pytest.mark.parametrize("expected_std", [1.0, 1.2, 1.5])
def test_a_branch_has_variance_one_whatever_its_input_is_expected_to_have(expected_std):
    """The point of the construction: no norm is there to enforce it."""
    torch.manual_seed(0)
    block = NFBlock(256, 256, 1, expected_std=expected_std, drop_path=0.0, gelu="tanh", std_eps="floor")
    torch.nn.init.ones_(block.skipinit_gain)
    x = expected_std * torch.randn(4, 256, 24, 24)
    with torch.no_grad():
        branch = ((block(x) - x) / 0.2)[:, :, 2:-2, 2:-2]  # padding takes variance from the edge
    assert branch.var((0, 2, 3)).mean().item() == pytest.approx(1, abs=0.08)


# --- stochastic depth


def test_deeper_blocks_are_dropped_more_often():
    with torch.device("meta"):
        network = create_model("nfnet_f1")
        rates = [m.rate for m in network.modules() if isinstance(m, StochasticDepth)]
        plain = create_model("nfnet_f1", stochastic_depth=0.0)
    assert rates == pytest.approx([0.25 * i / 24 for i in range(24)])
    assert {m.rate for m in plain.modules() if isinstance(m, StochasticDepth)} == {0.0}


def test_what_is_kept_is_not_rescaled():
    torch.manual_seed(0)
    x = torch.ones(1000, 2, 1, 1)
    for rescale, kept in ((False, 1.0), (True, 4.0)):
        out = StochasticDepth(0.75, rescale).train()(x)
        assert set(out.flatten().tolist()) == {0.0, kept}
        assert torch.equal(out[:, 0], out[:, 1])
        assert (out > 0).float().mean().item() == pytest.approx(0.25, abs=0.05)
    with torch.device("meta"):
        blocks = [m for m in create_model("nfnet_f0").modules() if isinstance(m, StochasticDepth)]
    assert not any(block.rescale for block in blocks)


# --- the network


def test_the_variants_differ_in_depth_resolution_and_dropout():
    for name, blocks, size, dropout in (
        ("nfnet_f0", 12, 256, 0.2),
        ("nfnet_f3", 48, 416, 0.4),
        ("nfnet_f6", 84, 576, 0.5),
    ):
        with torch.device("meta"):
            network = create_model(name)
        assert sum(isinstance(m, NFBlock) for m in network.modules()) == blocks
        assert network.dropout.p == dropout
        assert f"squash({size + 32}, {size + 32}, bicubic) | center_crop({size})" in network.default_preprocessing


def test_timms_names_lead_to_the_same_networks():
    with torch.device("meta"):
        assert create_model("dm_nfnet_f6").variant == "nfnet_f6"
