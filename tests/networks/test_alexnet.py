"""AlexNet: the response normalisation, the two halves, the three forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from taxonet.networks import create_model


def response_normalized(x, k):
    """b = a / (k + α/n · Σ a²)^β over five neighbouring maps (the paper's §3.3, α divided by n)."""
    out = np.empty_like(x)
    for i in range(x.shape[1]):
        window = x[:, max(0, i - 2) : i + 3]
        out[:, i] = x[:, i] / (k + 1e-4 / 5 * (window**2).sum(1)) ** 0.75
    return out


@pytest.mark.parametrize(
    ("name", "k", "order"),
    [
        ("alexnet_two_group", 2, ["conv", "act", "norm", "pool"]),
        ("alexnet_bvlc", 1, ["conv", "act", "norm", "pool"]),
        ("alexnet_caffenet", 1, ["conv", "act", "pool", "norm"]),
    ],
)
def test_response_normalisation_is_that_of_the_formula(name, k, order):
    network = create_model(name, num_classes=2)
    for stage in (network.body.conv1, network.body.conv2):
        assert [part for part, _ in stage.named_children()] == order
        x = 100 * np.random.default_rng(0).standard_normal((2, 12, 3, 4))  # large, so that the sum matters
        ours = stage.norm(torch.from_numpy(x)).numpy()
        assert np.abs(ours / x - 1).max() > 0.05
        np.testing.assert_allclose(ours, response_normalized(x, k), rtol=1e-12)


def test_two_groups_are_two_columns_that_meet_in_conv3_and_in_the_hidden_layers():
    torch.manual_seed(0)
    network = create_model("alexnet_two_group", num_classes=5).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, (2 / module.weight[0].numel()) ** 0.5)
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)

    def half(layer, gpu):
        """The weights of one card: its half of the output maps."""
        count = layer.out_channels // 2
        part = slice(gpu * count, (gpu + 1) * count)
        return layer.weight[part], layer.bias[part]

    with torch.no_grad():
        ours = network(x)
        convs = [stage.conv for stage in network.body.children()]
        columns = [F.relu(F.conv2d(x, *half(convs[0], gpu), stride=4, padding=2)) for gpu in (0, 1)]
        columns = [F.max_pool2d(c, 3, 2) for c in meeting_norm(columns)]
        columns = [F.relu(F.conv2d(c, *half(convs[1], gpu), padding=2)) for gpu, c in enumerate(columns)]
        columns = [F.max_pool2d(c, 3, 2) for c in meeting_norm(columns)]
        both = torch.cat(columns, 1)
        columns = [F.relu(F.conv2d(both, *half(convs[2], gpu), padding=1)) for gpu in (0, 1)]
        columns = [F.relu(F.conv2d(c, *half(convs[3], gpu), padding=1)) for gpu, c in enumerate(columns)]
        columns = [F.relu(F.conv2d(c, *half(convs[4], gpu), padding=1)) for gpu, c in enumerate(columns)]
        flat = torch.cat([F.max_pool2d(c, 3, 2) for c in columns], 1).flatten(1)
        hidden = network.hidden
        for layer in (hidden.fc6, hidden.fc7):
            flat = F.relu(flat @ layer.weight.T + layer.bias)
        expected = flat @ network.classifier.weight.T + network.classifier.bias
    assert flat.shape == (2, 4096)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def meeting_norm(columns):
    """Response normalisation over the maps of both cards, as one network has it."""
    whole = torch.from_numpy(response_normalized(torch.cat(columns, 1).numpy(), 2))
    return whole.chunk(2, 1)


def test_dropout_stands_where_each_form_has_it():
    ours, paper = create_model("alexnet"), create_model("alexnet_two_group")
    assert [ours.hidden.drop5.p, ours.hidden.drop6.p, ours.dropout.p] == [0.5, 0.5, 0.0]
    assert [paper.hidden.drop5.p, paper.hidden.drop6.p, paper.dropout.p] == [0.0, 0.5, 0.5]


@pytest.mark.parametrize("name", ["alexnet", "alexnet_caffenet"])
def test_pictures_of_other_sizes_pass(name):
    network = create_model(name, num_classes=3).eval()
    with torch.no_grad():
        assert [network(torch.zeros(1, 3, s, s)).shape for s in (64, 227, 300)] == [(1, 3)] * 3


def test_the_paper_s_55_maps_come_from_224_padded_or_from_227():
    with torch.device("meta"):
        for name, size in (("alexnet_two_group", 224), ("alexnet_bvlc", 227)):
            network = create_model(name)
            x = torch.zeros(1, 3, size, size)
            assert network.body.conv1.conv(x).shape == (1, 96, 55, 55)
            assert network.stages(x)["conv5"].shape == (1, 256, 6, 6)
