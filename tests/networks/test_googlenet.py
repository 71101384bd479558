"""GoogLeNet: the modules, the auxiliary heads and what they cost."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taxonet.networks import create_model
from taxonet.networks.complexity import count


def test_forward_is_plain_logits_and_the_auxiliary_heads_cost_nothing_there():
    torch.manual_seed(0)
    network = create_model("googlenet", num_classes=5, aux_heads=True)
    asked = []
    for head in network.auxiliary.values():
        head.register_forward_hook(lambda *_: asked.append(1))
    for mode in (True, False):
        assert network.train(mode)(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert not asked
    with torch.device("meta"):
        plain = count(create_model("googlenet"), 224, 224)
        assert count(create_model("googlenet", aux_heads=True), 224, 224).macs == plain.macs
    assert not list(create_model("googlenet", num_classes=5).auxiliary.parameters())


def test_auxiliary_heads_see_the_maps_of_4a_and_4d():
    """Written out a second time: pooling 5×5/3, 1×1, ReLU, linear, ReLU, linear."""
    torch.manual_seed(0)
    network = create_model("googlenet", num_classes=5, aux_heads=True).double().eval()
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        logits, auxiliary = network.forward_with_auxiliary(x)
        maps = network.stages(x)
        torch.testing.assert_close(logits, network(x), rtol=0, atol=0)
        assert maps["inception4a"].shape == (2, 512, 14, 14)
        assert maps["inception4d"].shape == (2, 528, 14, 14)
        for stage, ours in zip(("inception4a", "inception4d"), auxiliary, strict=True):
            head = network.auxiliary[stage]
            windows = maps[stage].unfold(2, 5, 3).unfold(3, 5, 3).mean((4, 5))  # 2, C, 4, 4
            conv = head.conv.conv
            reduced = torch.einsum("nchw,oc->nohw", windows, conv.weight[:, :, 0, 0]) + conv.bias[:, None, None]
            hidden = F.relu(F.relu(reduced).reshape(2, 2048) @ head.hidden.weight.T + head.hidden.bias)
            expected = hidden @ head.classifier.weight.T + head.classifier.bias
            torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["googlenet", "googlenet_torchvision"])
def test_the_loss_of_a_training_step_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, aux_heads=True, dropout=0.0).train()
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(4, 3, 64, 64))
    assert [a.shape for a in auxiliary] == [(4, 3), (4, 3)]
    (logits.logsumexp(1).sum() + network.auxiliary_weight * sum(a.logsumexp(1).sum() for a in auxiliary)).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_a_network_without_auxiliary_heads_has_no_auxiliary_logits():
    network = create_model("mobilenet_v3_small_035", num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64)
    logits, auxiliary = network.forward_with_auxiliary(x)
    assert auxiliary == []
    assert torch.equal(logits, network(x))


def test_reset_classifier_resets_the_auxiliary_heads_too():
    network = create_model("googlenet_torchvision", num_classes=3, aux_heads=True)
    network.reset_classifier(7)
    logits, auxiliary = network.forward_with_auxiliary(torch.randn(2, 3, 64, 64))
    assert [a.shape for a in (logits, *auxiliary)] == [(2, 7)] * 3
    assert list(network.classifiers()) == [
        "classifier",
        "auxiliary.inception4a.classifier",
        "auxiliary.inception4d.classifier",
    ]


def test_a_module_concatenates_its_four_branches():
    torch.manual_seed(0)
    network = create_model("googlenet", num_classes=2).double().eval()
    module = network.body.inception4c
    x = torch.rand(1, 512, 9, 9, dtype=torch.float64)

    def relu_conv(x, unit, padding=0):
        return F.relu(F.conv2d(x, unit.conv.weight, unit.conv.bias, padding=padding))

    one, three, five, pool = module.branches.values()
    expected = torch.cat(
        [
            relu_conv(x, one.conv1),
            relu_conv(relu_conv(x, three.conv1), three.conv2, 1),
            relu_conv(relu_conv(x, five.conv1), five.conv2, 2),
            relu_conv(F.max_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1), pool.conv1),  # the input is positive
        ],
        1,
    )
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected, rtol=1e-12, atol=1e-12)
    assert [branch.shape[1] for branch in expected.split([128, 256, 64, 64], 1)] == [128, 256, 64, 64]


def test_the_forms_differ_in_the_wide_branch_norms_and_biases():
    with torch.device("meta"):
        paper, port = create_model("googlenet"), create_model("googlenet_torchvision")
    assert paper.body.inception3a.branches["5x5"].conv2.conv.kernel_size == (5, 5)
    assert port.body.inception3a.branches["5x5"].conv2.conv.kernel_size == (3, 3)
    assert {m.eps for m in port.modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in paper.modules())
    assert [m.bias is None for m in (paper.body.stem.conv1.conv, port.body.stem.conv1.conv)] == [False, True]
    assert [paper.dropout.p, port.dropout.p] == [0.4, 0.2]
