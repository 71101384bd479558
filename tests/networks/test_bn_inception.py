"""BN-Inception: its modules written out a second time, with and without excitation."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.weights.conversion import convert


def unit(x, layers, stride=1):
    """Convolution, batch norm on its statistics, ReLU."""
    conv, norm = layers.conv, layers.norm
    x = F.conv2d(x, conv.weight, conv.bias, stride, padding=conv.weight.shape[2] // 2)
    mean, std = norm.running_mean[:, None, None], (norm.running_var[:, None, None] + 1e-5).sqrt()
    return F.relu((x - mean) / std * norm.weight[:, None, None] + norm.bias[:, None, None])


def excited(x, squeeze):
    hidden = F.relu(x.mean((2, 3)) @ squeeze.reduce.weight[:, :, 0, 0].T + squeeze.reduce.bias)
    scale = torch.sigmoid(hidden @ squeeze.expand.weight[:, :, 0, 0].T + squeeze.expand.bias)
    return x * scale[:, :, None, None]


def average_with_zeros(x):
    """3×3, the zeros of the padding counted."""
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) / 9


def largest(x):
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).amax((4, 5))  # the input is positive


def written_out(module, x, pool):
    branches = module.branches
    stride = 1 if "1x1" in branches else 2
    maps = [unit(x, branches["1x1"].conv1)] if stride == 1 else []
    maps.append(unit(unit(x, branches["3x3"].conv1), branches["3x3"].conv2, stride))
    double = branches["double3x3"]
    maps.append(unit(unit(unit(x, double.conv1), double.conv2), double.conv3, stride))
    maps.append(unit(pool(x), branches["pool"].conv1) if stride == 1 else F.max_pool2d(x, 3, 2, ceil_mode=True))
    return torch.cat(maps, 1)


@pytest.mark.parametrize("name", ["bn_inception", "se_bn_inception"])
@pytest.mark.parametrize(
    ("place", "pool", "hidden"),
    [("3a", average_with_zeros, 16), ("3c", None, 36), ("4e", None, 66), ("5b", largest, 64)],
)
def test_a_module_written_out(name, place, pool, hidden):
    torch.manual_seed(0)
    network = randomised(create_model(name, num_classes=2)).double().eval()
    module = network.body.get_submodule(f"inception{place}")
    c_in = module.branches["3x3"].conv1.conv.in_channels
    x = torch.rand(2, c_in, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(module, x, pool)
        if name.startswith("se_"):
            expected = excited(expected, module.squeeze)
            assert module.squeeze.reduce.out_channels == hidden
        torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [96, 112, 299])
def test_odd_maps_fit_together(size):
    network = create_model("bn_inception", num_classes=2).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, size, size)).shape == (1, 2)


def test_cadenes_names_find_their_places():
    network = create_model("bn_inception", num_classes=4, conv_bias=True)
    theirs = {}
    for key, value in network.state_dict().items():
        path, _, leaf = key.rpartition(".")
        theirs[f"{cadene_name(path)}.{leaf}"] = value
    assert theirs["inception_3a_double_3x3_2_bn.running_var"].shape == (96,)
    assert "inception_4e_1x1.weight" not in theirs
    layout, renamed = convert(theirs, network, "bn_inception")
    assert layout == "cadene"
    assert all(torch.equal(renamed[key], value) for key, value in network.state_dict().items())


def cadene_name(path):
    """Their name of one of our modules, by rule instead of by order."""
    if path == "classifier":
        return "last_linear"
    parts = path.split(".")
    end = "_bn" if parts[-1] == "norm" else ""
    if parts[1] == "stem":
        return {"conv1": "conv1_7x7_s2", "conv2": "conv2_3x3_reduce", "conv3": "conv2_3x3"}[parts[2]] + end
    branch, place = parts[3], int(parts[4].removeprefix("conv"))
    names = {
        "1x1": ("1x1",),
        "3x3": ("3x3_reduce", "3x3"),
        "double3x3": ("double_3x3_reduce", "double_3x3_1", "double_3x3_2"),
        "pool": ("pool_proj",),
    }
    return f"inception_{parts[1].removeprefix('inception')}_{names[branch][place - 1]}{end}"
