"""ResNet's special points: shortcut A, where the stride sits, the pre-activated road."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model
from taxonet.networks.residual import PreActivationUnit, SubsampleAndPad


@pytest.mark.parametrize(("at_end", "places"), [(False, (8, 24)), (True, (0, 16))])
def test_shortcut_a_takes_every_second_pixel_and_adds_zero_maps(at_end, places):
    x = torch.randn(2, 16, 6, 6)
    out = SubsampleAndPad(16, 32, 2, at_end)(x)
    first, last = places
    assert out[:, first:last].equal(x[:, :, ::2, ::2])
    assert out[:, :first].abs().sum() == out[:, last:].abs().sum() == 0


def test_the_shortcut_is_an_option_of_the_cifar_nets():
    assert sum(p.numel() for p in create_model("resnet20_cifar", shortcut="B").parameters()) == 272_474
    free, end = (randomised(create_model("resnet20_cifar", shortcut=s)).eval() for s in ("A", "A_end"))
    end.load_state_dict(free.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert not torch.allclose(free(x), end(x), rtol=1e-3)


def test_the_authors_form_strides_in_the_first_convolution_and_pools_the_last_half_window():
    later, authors = create_model("resnet50"), create_model("resnet50_v1")
    assert later.body.stage2[0].conv1.conv.stride == (1, 1)
    assert later.body.stage2[0].conv2.conv.stride == (2, 2)
    assert authors.body.stage2[0].conv1.conv.stride == (2, 2)
    assert authors.body.stage2[0].conv2.conv.stride == (1, 1)
    with torch.no_grad():
        ones = torch.arange(49.0).reshape(1, 1, 7, 7)
        assert authors.body.stem.pool(ones)[0, 0].tolist() == [[16, 18, 20], [30, 32, 34], [44, 46, 48]]
        assert later.body.stem.pool(ones).shape == (1, 1, 4, 4)


@pytest.mark.parametrize("widths", [(8, 8), (4, 4, 16)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pre_activation_unit_by_hand(widths, stride):
    from taxonet.networks.layers import Style

    unit = randomised(PreActivationUnit(8, widths, stride=stride, style=Style())).eval()
    x = torch.randn(2, 8, 6, 6)
    norm = lambda n, v: F.relu(F.batch_norm(v, n.running_mean, n.running_var, n.weight, n.bias))  # noqa: E731
    layers, activated = unit.layers, norm(unit.norm1, x)
    if len(widths) == 2:
        out = F.conv2d(
            norm(layers.norm2, F.conv2d(activated, layers.conv1.weight, None, stride, 1)),
            layers.conv2.weight,
            None,
            1,
            1,
        )
    else:
        out = F.conv2d(activated, layers.conv1.weight)
        out = F.conv2d(norm(layers.norm2, out), layers.conv2.weight, None, stride, 1)
        out = F.conv2d(norm(layers.norm3, out), layers.conv3.weight)
    same = stride == 1 and widths[-1] == 8
    expected = out + (x if same else F.conv2d(activated, unit.project.weight, None, stride))
    assert torch.allclose(unit(x), expected, atol=1e-5)


def test_a_wide_network_widens_its_stages_and_not_its_stem():
    with torch.device("meta"):
        body = create_model("wrn16_8_cifar").body
    assert body.stem.conv.out_channels == 16
    assert [stage[0].layers.conv1.out_channels for stage in (body.stage1, body.stage2, body.stage3)] == [128, 256, 512]
    assert sum(isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3) for m in body.modules()) == 13
