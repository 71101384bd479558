"""MnasNet: the searched tables, the first block's skip, widths."""

import pytest
import torch
from tests.networks.test_networks import randomised

from taxonet.errors import BundleError
from taxonet.networks import create_model
from taxonet.networks.layers import Conv2dSame, InvertedResidual, SqueezeExcite, batch_norms
from taxonet.networks.registry import find
from taxonet.weights.conversion import convert, own_modules
from taxonet.weights.layouts import layouts_of


def blocks(network):
    return [m for m in network.modules() if isinstance(m, InvertedResidual)]


def test_squeeze_is_a_quarter_of_the_input_and_only_where_the_search_put_it():
    with torch.device("meta"):
        network = create_model("mnasnet_a1")
    stages = list(network.body.children())[1:-1]
    hidden = [[m.reduce.out_channels for m in stage.modules() if isinstance(m, SqueezeExcite)] for stage in stages]
    assert hidden == [[], [], [6, 10, 10], [], [20, 28], [28, 40, 40], []]


def test_b1_has_no_squeeze():
    with torch.device("meta"):
        network = create_model("mnasnet_b1")
    assert network.variant == "mnasnet1_0"
    assert not any(isinstance(m, SqueezeExcite) for m in network.modules())


@pytest.mark.parametrize(
    ("name", "residual"),
    [("mnasnet_small", False), ("mnasnet_small_timm", True), ("mnasnet_a1", False), ("mnasnet0_35", False)],
)
def test_only_timms_small_net_adds_the_input_of_the_first_block(name, residual):
    with torch.device("meta"):
        network = create_model(name)
    assert blocks(network)[0].residual is residual
    assert blocks(network)[-2].residual


def test_timms_small_weights_are_not_taken_for_the_authors_net():
    timm = create_model("mnasnet_small_timm", num_classes=3)
    names = dict(zip(own_modules(timm), layouts_of("mnasnet")["timm"](timm), strict=True))
    state = {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in timm.state_dict().items()}
    assert convert(state, create_model("mnasnet_small_timm"), "mnasnet")[0] == "timm"
    with pytest.raises(BundleError, match="not those of mnasnet_small"):
        convert(state, create_model("mnasnet_small"), "mnasnet")


def test_widths_of_the_table_stand_as_they_are():
    with torch.device("meta"):
        stages = list(create_model("mnasnet_d1").body.children())[1:-1]
    assert [stage[-1].layers.project.conv.out_channels for stage in stages] == [24, 36, 48, 96, 96, 80, 320]
    assert [stage[0].layers.depthwise.conv.kernel_size[0] for stage in stages] == [3, 3, 3, 5, 7, 3, 7]


def test_widths_round_to_eights_and_the_head_stays():
    with torch.device("meta"):
        network = create_model("mnasnet0_35")
    assert network.body.stem.conv.out_channels == 16  # 11.2: 8 would be below 0.9 of it
    assert network.num_features == 1280


def test_the_authors_style():
    x = torch.randn(1, 3, 64, 64)
    plain = randomised(create_model("mnasnet_small", num_classes=3)).eval()
    authors = create_model("mnasnet_small", num_classes=3, padding="same", norm_eps=1e-3).eval()
    authors.load_state_dict(plain.state_dict())
    assert sum(isinstance(m, Conv2dSame) for m in authors.modules()) == 5
    assert {norm.eps for norm in batch_norms(authors)} == {1e-3}
    assert not torch.allclose(plain(x), authors(x), rtol=1e-3)


@pytest.mark.parametrize(
    ("alias", "name"), [("semnasnet_100", "mnasnet_a1"), ("mnasnet_100", "mnasnet1_0"), ("mnasnet_b1", "mnasnet1_0")]
)
def test_timm_calls_a1_semnasnet(alias, name):
    assert find(alias).name == name
