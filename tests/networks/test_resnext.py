"""ResNeXt's grouped form is the sum of its roads."""

import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.networks import create_model


def test_the_grouped_unit_is_a_sum_over_roads():
    """Figure 3(a): every road reduces, convolves and expands by itself; the expansions are added."""
    unit = randomised(create_model("resnext50_32x4d")).eval().body.stage1[1]
    x = torch.randn(1, 256, 7, 7)

    def norm(n, v, part):
        return F.batch_norm(v, n.running_mean[part], n.running_var[part], n.weight[part], n.bias[part], eps=n.eps)

    total = 0
    for road in range(32):
        part = slice(4 * road, 4 * road + 4)
        out = F.relu(norm(unit.conv1.norm, F.conv2d(x, unit.conv1.conv.weight[part]), part))
        out = F.relu(norm(unit.conv2.norm, F.conv2d(out, unit.conv2.conv.weight[part], padding=1), part))
        total = total + F.conv2d(out, unit.conv3.conv.weight[:, part])
    expected = F.relu(norm(unit.conv3.norm, total, slice(None)) + x)
    with torch.no_grad():
        assert torch.allclose(unit(x), expected, rtol=1e-4, atol=1e-4)


def test_one_road_of_64_is_a_resnet():
    first, second = create_model("resnext50_1x64d"), create_model("resnet50")
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (first, second)]
    assert shapes[0] == shapes[1]
