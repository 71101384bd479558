"""ReLU6 clamps: the golden pictures never reach 6, so that they cannot tell it from ReLU."""

import pytest
import torch

from taxonet.networks import create_model


@pytest.mark.parametrize(
    ("name", "options"),
    [("mobilenet_v1_025", {"activation": "relu6"}), ("mobilenet_v2_035", {}), ("efficientnet_lite0", {})],
)
def test_no_map_after_an_activation_exceeds_six(name, options):
    torch.manual_seed(0)
    network, highest = create_model(name, **options).train(), []  # in training the norms keep the maps' scale
    for key, module in network.named_modules():
        if key.endswith(".act"):
            module.register_forward_hook(lambda module, inputs, output: highest.append(output.max().item()))
    for weight in (m.weight for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        weight.data.fill_(10.0)
    with torch.no_grad():
        network(torch.randn(2, 3, 64, 64))
    assert len(highest) > 20
    assert set(highest) == {6.0}
