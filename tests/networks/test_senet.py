"""Squeeze-and-excitation: where it sits, what it costs, what it computes."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.errors import UsageError
from taxonet.networks import create_model


def parameters(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in create_model(name, **options).parameters())


@pytest.mark.parametrize(
    ("reduction", "count"),
    [(2, 45_676_584), (4, 35_616_808), (8, 30_586_920), (16, 28_071_976), (32, 26_814_504)],
)
def test_the_reductions_of_the_ablation(reduction, count):
    assert parameters("seresnet50", reduction=reduction, squeeze_bias=False) == count


def test_behind_the_3x3_it_is_cheaper_and_a_reduction_is_one_of_the_table():
    assert parameters("seresnet50", placement="3x3", squeeze_bias=False) == 25_714_216
    with pytest.raises(UsageError, match="must be one of 2, 4, 8, 16, 32"):
        create_model("seresnet50", reduction=3)


def excite(squeeze, x):
    pooled = x.mean((2, 3), keepdim=True)
    hidden = F.relu(F.conv2d(pooled, squeeze.reduce.weight, squeeze.reduce.bias))
    return x * torch.sigmoid(F.conv2d(hidden, squeeze.expand.weight, squeeze.expand.bias))


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity", "3x3"])
def test_where_the_excitation_sits(placement):
    network = randomised(create_model("seresnet50", placement=placement)).eval()
    x = torch.randn(1, 256, 7, 7)
    found = network.body.stage1[1]  # its shortcut is the identity
    unit = found.unit if placement == "post" else found
    norm = lambda n, v: F.batch_norm(v, n.running_mean, n.running_var, n.weight, n.bias, eps=n.eps)  # noqa: E731
    branch = excite(unit.conv1.squeeze, x) if placement == "pre" else x
    branch = F.relu(norm(unit.conv1.norm, F.conv2d(branch, unit.conv1.conv.weight)))
    branch = F.relu(norm(unit.conv2.norm, F.conv2d(branch, unit.conv2.conv.weight, padding=1)))
    branch = excite(unit.conv2.squeeze, branch) if placement == "3x3" else branch
    branch = norm(unit.conv3.norm, F.conv2d(branch, unit.conv3.conv.weight))
    branch = excite(unit.squeeze, branch) if placement == "standard" else branch
    expected = F.relu(branch + (excite(unit.shortcut.squeeze, x) if placement == "identity" else x))
    expected = excite(found.squeeze, expected) if placement == "post" else expected
    with torch.no_grad():
        assert torch.allclose(found(x), expected, rtol=1e-4, atol=1e-4)
