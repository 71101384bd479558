"""EfficientNet: the published widths of the squeeze, stochastic depth, the two styles."""

import pytest
import torch
from tests.networks.test_networks import randomised
from torch import nn

from taxonet.networks import create_model
from taxonet.networks.layers import Conv2dSame, InvertedResidual, SqueezeExcite, batch_norms


def blocks(network):
    return [m for m in network.modules() if isinstance(m, InvertedResidual)]


def test_squeeze_is_a_quarter_of_the_input_before_expansion():
    with torch.device("meta"):
        network = create_model("efficientnet_b0")
    squeezes = [m for m in network.modules() if isinstance(m, SqueezeExcite)]
    hidden = [m.reduce.out_channels for m in squeezes]
    assert hidden == [8, 4, 6, 6, 10, 10, 20, 20, 20, 28, 28, 28, 48, 48, 48, 48]
    assert all(isinstance(m.act, nn.SiLU) and isinstance(m.gate, nn.Sigmoid) for m in squeezes)


def test_stochastic_depth_grows_to_the_end():
    with torch.device("meta"):
        rates = [b.drop_path.rate for b in blocks(create_model("efficientnet_b0"))]
        other = [b.drop_path.rate for b in blocks(create_model("efficientnet_b0", stochastic_depth=0.5))]
    assert rates == pytest.approx([0.2 * i / 16 for i in range(16)])
    assert other == pytest.approx([0.5 * i / 16 for i in range(16)])


def test_stochastic_depth_drops_whole_branches_in_training_only():
    torch.manual_seed(0)
    network = create_model("efficientnet_b0", stochastic_depth=0.9)
    block = blocks(network)[-2]
    assert block.residual
    x = torch.randn(64, 192, 2, 2)
    with torch.no_grad():
        dropped = [bool(torch.equal(one, before)) for one, before in zip(block.train()(x), x, strict=True)]
        assert 0 < sum(dropped) < 64
        assert sum(dropped) / 64 == pytest.approx(0.9 * 14 / 16, abs=0.15)
        assert not any(torch.equal(one, before) for one, before in zip(block.eval()(x), x, strict=True))


def test_styles_of_the_authors_and_of_torchvision():
    with torch.device("meta"):
        authors = create_model("efficientnet_b0")
        torchvision = create_model("efficientnet_b0", padding="symmetric", norm_eps=1e-5)
    assert sum(isinstance(m, Conv2dSame) for m in authors.modules()) == 5
    assert {norm.eps for norm in batch_norms(authors)} == {1e-3}
    assert not any(isinstance(m, Conv2dSame) for m in torchvision.modules())
    assert {norm.eps for norm in batch_norms(torchvision)} == {1e-5}


def test_padding_changes_the_function_and_not_the_weights():
    same = randomised(create_model("efficientnet_b0", num_classes=3)).eval()
    symmetric = create_model("efficientnet_b0", num_classes=3, padding="symmetric").eval()
    symmetric.load_state_dict(same.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(same(x), symmetric(x), rtol=1e-3)


@pytest.mark.parametrize(("name", "lengths"), [("b1", [2, 3, 3, 4, 4, 5, 2]), ("b7", [4, 7, 7, 10, 10, 13, 4])])
def test_repeats_are_rounded_up(name, lengths):
    with torch.device("meta"):
        network = create_model(f"efficientnet_{name}")
    assert [len(stage) for stage in list(network.body.children())[1:-1]] == lengths


def test_authors_initialisation():
    torch.manual_seed(0)
    network = create_model("efficientnet_b0")
    assert network.classifier.weight.abs().max().item() == pytest.approx(1000**-0.5, rel=0.01)
    depthwise = blocks(network)[-1].layers.depthwise.conv.weight  # 3×3, the fan-out of one group
    assert depthwise.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
