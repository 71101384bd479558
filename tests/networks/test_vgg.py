"""VGG: the configurations, batch norm with biases, excitation after each ReLU."""

import torch
import torch.nn.functional as F
from torch import nn

from taxonet.networks import create_model
from taxonet.weights.conversion import own_modules
from taxonet.weights.layouts.vgg import caffe


def kernels(name):
    with torch.device("meta"):
        network = create_model(name)
    return [
        [(m.out_channels, m.kernel_size[0]) for m in group.modules() if isinstance(m, nn.Conv2d) and m.stride == (1, 1)]
        for group in network.body.children()
    ]


def test_configuration_c_is_d_with_a_1x1_at_the_end_of_three_groups():
    c, d = kernels("vgg16_c"), kernels("vgg16")
    assert c[:2] == d[:2]
    assert [group[:-1] for group in c] == [group[:-1] for group in d]
    assert [group[-1] for group in c[2:]] == [(256, 1), (512, 1), (512, 1)]
    assert [group[-1] for group in d[2:]] == [(256, 3), (512, 3), (512, 3)]


def test_response_normalisation_follows_the_first_convolution_only():
    with torch.device("meta"):
        network = create_model("vgg11_lrn")
    assert [name for name, _ in network.body.group1.named_children()] == ["conv1", "norm", "pool"]
    assert sum(isinstance(m, nn.LocalResponseNorm) for m in network.modules()) == 1
    assert network.body.group1.norm.k == 2.0


def test_an_excitation_follows_the_relu_of_every_convolution():
    torch.manual_seed(0)
    with torch.device("meta"):
        network = create_model("se_vgg16_bn")
    group = network.body.group1.to_empty(device="cpu").double()
    for module in group.modules():
        for value in module.parameters(recurse=False):
            nn.init.normal_(value, 0.2, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    group.eval()
    x = torch.randn(2, 3, 10, 10, dtype=torch.float64)
    out = x
    for conv, squeeze in ((group.conv1, group.squeeze1), (group.conv2, group.squeeze2)):
        norm = conv.norm
        out = F.conv2d(out, conv.conv.weight, conv.conv.bias, padding=1)
        out = (out - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
        out = F.relu(out * norm.weight[:, None, None] + norm.bias[:, None, None])
        hidden = F.relu(out.mean((2, 3)) @ squeeze.reduce.weight[:, :, 0, 0].T + squeeze.reduce.bias)
        scale = torch.sigmoid(hidden @ squeeze.expand.weight[:, :, 0, 0].T + squeeze.expand.bias)
        out = out * scale[:, :, None, None]
    with torch.no_grad():
        torch.testing.assert_close(group(x), F.max_pool2d(out, 2), rtol=1e-10, atol=1e-12)
    assert squeeze.reduce.out_channels == 4


def test_a_fresh_network_keeps_the_scale_of_what_passes():
    """Sixteen layers without batch norm learn only if activations neither vanish nor explode at the start."""
    torch.manual_seed(0)
    network = create_model("vgg16", num_classes=10).eval()
    with torch.no_grad():
        first, *_, last = network.stages(torch.randn(1, 3, 64, 64)).values()
    assert first.std() / 3 < last.std() < 3 * first.std()


def test_caffe_s_names_number_the_convolutions_of_each_group():
    with torch.device("meta"):
        network = create_model("vgg16_c")
    names = list(caffe(network))
    assert len(names) == len(own_modules(network))
    assert names[:3] == ["conv1_1", "conv1_2", "conv2_1"]
    assert names[-6:] == ["conv5_1", "conv5_2", "conv5_3", "fc6", "fc7", "fc8"]
