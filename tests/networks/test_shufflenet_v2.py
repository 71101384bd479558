"""ShuffleNet v2: both forms against a second formulation, a unit's untouched half, the two files kept apart."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.errors import BundleError
from taxonet.networks import create_model
from taxonet.networks.shufflenet_v2 import ShuffleUnit
from taxonet.weights.conversion import convert, own_modules
from taxonet.weights.layouts import layouts_of


def written_out(state, x, authors):
    """ShuffleNet v2 in plain functions over a state, with every permutation of maps as a list of indices."""

    def unit(x, prefix, stride=1, groups=1, relu=True):
        weight = state[f"{prefix}.conv.weight"]
        x = F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups)
        norm = [state[f"{prefix}.norm.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm)
        return x.clamp(min=0) if relu else x

    def separable(x, prefix, names, stride):
        x = unit(x, f"{prefix}.{names[0]}", stride, groups=x.shape[1], relu=False)
        return unit(x, f"{prefix}.{names[1]}")

    x = F.max_pool2d(unit(x, "body.stem", 2), 3, 2, 1)
    for stage, repeats in ((1, 4), (2, 8), (3, 4)):
        for number in range(repeats):
            prefix, channels = f"body.stage{stage}.{number}", x.shape[1]
            left = right = x
            if number:
                half = channels // 2
                order = [*range(0, channels, 2), *range(1, channels, 2)] if authors else list(range(channels))
                left, right = x[:, order[:half]], x[:, order[half:]]
            else:
                left = separable(x, f"{prefix}.shortcut", ("depthwise", "pointwise"), 2)
            right = unit(right, f"{prefix}.branch.reduce")
            right = separable(right, f"{prefix}.branch", ("depthwise", "expand"), 1 if number else 2)
            x = torch.cat((left, right), 1)
            if not authors:  # a0 b0 a1 b1 …
                half = x.shape[1] // 2
                x = x[:, [i // 2 + half * (i % 2) for i in range(2 * half)]]
    x = unit(x, "body.last").mean((2, 3))
    return F.linear(x, state["classifier.weight"], state.get("classifier.bias"))


@pytest.mark.parametrize(("name", "authors"), [("shufflenet_v2_x0_5", False), ("shufflenet_v2_x1_0_megvii", True)])
def test_the_network_equals_its_formulation_in_plain_functions(name, authors):
    torch.manual_seed(0)
    network = randomised(create_model(name, num_classes=5)).eval().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = written_out(network.state_dict(), x, authors)
        other = written_out(network.state_dict(), x, not authors)
        assert torch.allclose(network(x), expected, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(expected, other, rtol=1e-3)


def test_half_of_the_maps_pass_untouched():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ShuffleUnit(8, 8, 1, authors=False).eval()(x)[:, 0::2], x[:, :4])
    assert torch.equal(ShuffleUnit(8, 8, 1, authors=True).eval()(x)[:, :4], x[:, 0::2])


def test_the_authors_shortcut_keeps_the_maps_of_its_input():
    for authors, kept in ((False, 58), (True, 24)):
        with torch.device("meta"):
            unit = ShuffleUnit(24, 116, 2, authors)
        assert unit.shortcut.pointwise.conv.out_channels == kept
        assert unit.branch.expand.conv.out_channels == 116 - kept


def test_files_of_one_form_are_refused_by_the_other():
    """At 0.5 both forms have the same shapes, so only the names can tell them apart."""
    names = {"torchvision": "shufflenet_v2_x0_5", "megvii": "shufflenet_v2_x0_5_megvii"}
    for layout, name in names.items():
        network = create_model(name, num_classes=3)
        theirs = dict(zip(own_modules(network), layouts_of("shufflenet_v2")[layout](network), strict=True))
        state = {f"{theirs[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in network.state_dict().items()}
        assert convert(state, create_model(name), "shufflenet_v2")[0] == layout
        (other,) = set(names.values()) - {name}
        with pytest.raises(BundleError, match="not those of"):
            convert(state, create_model(other), "shufflenet_v2")


def test_a_classifier_without_bias_stays_without():
    network = create_model("shufflenet_v2_x0_5_megvii", num_classes=3)
    network.reset_classifier(7)
    assert network.classifier.bias is None
    rebuilt = create_model(network.variant, **network.options)
    rebuilt.load_state_dict(network.state_dict(), strict=True)


def test_dropout_of_the_largest():
    with torch.device("meta"):
        assert create_model("shufflenet_v2_x2_0_megvii").dropout.p == 0.2
        assert create_model("shufflenet_v2_x2_0").dropout.p == 0.0
