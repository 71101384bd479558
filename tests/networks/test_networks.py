"""Every registered network against its sheet, and the surface that all of them share."""

import pytest
import torch
from torch import nn

from taxonet.errors import UsageError
from taxonet.networks import create_model, list_models
from taxonet.networks.complexity import complexity, count
from taxonet.networks.layers import Conv2dSame, InvertedResidual, batch_norms, make_divisible
from taxonet.networks.registry import find, register
from taxonet.sheets import families, load_sheet

NAMES = list_models()
# one small member of every family, and every form of block, for tests that run a network
SMALL = [
    "densenet_40_12",
    "densenet_b_100_12",
    "densenet_c_40_12",
    "densenet_bc_22_12",
    "densenet121",
    "mobilenet_v1_025",
    "mobilenet_v2_035",
    "mobilenet_v3_large_035",
    "mobilenet_v3_small_minimal",
    "mobilenet_v3_small_075_torchvision",
    "efficientnet_lite0",
    "resnet18",
    "resnet50_v1",
    "resnet20_cifar",
    "preresnet50",
    "preresnet110_cifar",
    "resnext50_32x4d",
    "seresnet50",
    "sepreresnet164_cifar",
    "efficientnet_b0",
    "mnasnet_small",
    "mnasnet0_35",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x0_5_megvii",
    "shufflenet_v1_g8_x0_25",
    "se_shufflenet_v1_g3_x1_0",
    "igc_l4m8_8",
    "igc_l4m8_8_ident",
    "igc_l24m2_8_ident",
    "igc_l100m2_imagenet",
    "regconv_w16_8_ident",
    "igcv3_d_025",
    "igcv3_d_cifar",
    "dpn68",
    "dpn68b",
    "alexnet",
    "alexnet_caffenet",
    "vgg11_lrn",
    "googlenet",
    "googlenet_torchvision",
    "bn_inception",
    "se_bn_inception",
    "se_mobilenet_v1",
    "attention56_cifar",
    "attentionnext56",
]


def facts(name):
    return load_sheet(find(name).family).variants[name]


def size(name):
    return 32 if facts(name).input_size == 32 else 64


def randomised(network, seed=0):
    """Weights and statistics that are not trivial, so that a wrong wiring shows."""
    generator = torch.Generator().manual_seed(seed)
    for norm in batch_norms(network):
        norm.running_mean.normal_(0, 0.1, generator=generator)
        norm.running_var.uniform_(0.5, 1.5, generator=generator)
        nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
    return network


def test_sheets_and_registry_name_the_same_networks():
    assert {name for family in families() for name in load_sheet(family).variants} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cost_equals_the_sheet(name):
    sheet = facts(name)
    built = complexity(name, sheet.input_size, sheet.channels, num_classes=sheet.num_classes)
    assert built.params == sheet.params
    assert sheet.macs is not None
    assert built.macs == pytest.approx(sheet.macs, rel=1e-3)


COUNTS = [(name, c) for name in NAMES for c in facts(name).counts]


@pytest.mark.parametrize(("name", "expected"), COUNTS, ids=lambda v: v if isinstance(v, str) else "")
def test_cost_at_other_settings_equals_the_sheet(name, expected):
    sheet = facts(name)
    built = complexity(
        name,
        expected.input_size or sheet.input_size,
        expected.channels or sheet.channels,
        num_classes=expected.num_classes or sheet.num_classes,
        **expected.options,
    )
    if expected.params is not None:
        assert built.params == expected.params
    if expected.macs is not None:
        assert built.macs == pytest.approx(expected.macs, rel=1e-3)


def test_multiply_adds_are_those_of_a_hand_count():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, groups=1), nn.Flatten(), nn.Linear(8 * 16 * 16, 5))
    assert count(network, 16, 16).macs == 3 * 9 * 8 * 16 * 16 + 8 * 16 * 16 * 5


@pytest.mark.parametrize("name", NAMES)
def test_every_network_builds_with_other_channels_and_classes(name):
    with torch.device("meta"):
        network = create_model(name, num_classes=7, in_channels=1)
        logits = network(torch.zeros(2, 1, facts(name).input_size, facts(name).input_size))
    assert logits.shape == (2, 7)
    assert network.num_features == network.classifier.in_features


@pytest.mark.parametrize("name", SMALL)
def test_forward_backward_reaches_every_parameter(name):
    torch.manual_seed(0)
    network = create_model(name, num_classes=3, dropout=0.0).train()
    loss = network(torch.randn(4, 3, size(name), size(name))).logsumexp(1).sum()
    loss.backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", SMALL)
def test_stages_are_the_road_of_forward_features(name):
    network = randomised(create_model(name, num_classes=3)).eval()
    x = torch.randn(2, 3, size(name), size(name))
    with torch.no_grad():
        maps = network.stages(x)
        last = list(maps.values())[-1]
        assert torch.equal(last, network.forward_features(x))
        assert torch.equal(network.forward_head(last), network(x))
    assert len(maps) >= 4
    sides = [m.shape[2] for m in maps.values()]
    assert sides == sorted(sides, reverse=True)
    assert all(m.ndim == 4 and m.shape[0] == 2 for m in maps.values())


@pytest.mark.parametrize("name", SMALL)
def test_reset_classifier(name):
    network = create_model(name, num_classes=3).eval()
    x = torch.randn(1, 3, size(name), size(name))
    before = network.forward_features(x)
    network.reset_classifier(11)
    assert network(x).shape == (1, 11)
    assert torch.equal(before, network.forward_features(x))
    assert network.options["num_classes"] == 11
    with pytest.raises(UsageError, match="num_classes is 0"):
        network.reset_classifier(0)


@pytest.mark.parametrize("name", SMALL)
def test_same_seed_same_bits(name):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(name).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    torch.manual_seed(4)
    other = create_model(name).state_dict()
    assert any(not torch.equal(states[0][key], other[key]) for key in other)


@pytest.mark.parametrize("name", SMALL)
def test_default_preprocessing_fits_the_network(name):
    from taxonet.images import Preprocessing

    network = create_model(name)
    preprocessing = Preprocessing.parse(network.default_preprocessing)
    assert preprocessing.output_size == (facts(name).input_size,) * 2


def test_a_whole_network_equals_its_state_loaded_into_another():
    first = randomised(create_model("mobilenet_v3_small_035")).eval()
    second = create_model("mobilenet_v3_small_035").eval()
    second.load_state_dict(first.state_dict(), strict=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(first(x), second(x))


# --- DenseNet


@pytest.mark.parametrize("name", ["densenet_bc_22_12", "densenet_c_40_12"])
def test_memory_efficient_is_exact(name):
    """Same logits, gradients and running statistics after three steps: the recomputation changes nothing."""
    networks = []
    for efficient in (False, True):
        torch.manual_seed(0)
        networks.append(create_model(name, memory_efficient=efficient).double().train())
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in networks]
    for step in range(3):
        x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            network(x).logsumexp(1).sum().backward()
            optimizer.step()
    plain, efficient = (network.state_dict() for network in networks)
    for key in plain:
        assert torch.allclose(plain[key], efficient[key], rtol=1e-10, atol=1e-12), key
    assert int(efficient["body.block1.layers.0.norm1.num_batches_tracked"]) == 3


def test_memory_efficient_keeps_less_for_the_backward_pass():
    def saved_bytes(efficient):
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.numel() * tensor.element_size()
            return tensor

        network = create_model("densenet_bc_100_12", memory_efficient=efficient).train()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(torch.randn(1, 3, 32, 32))
        return total

    # 16 layers a block: concatenations, norms and ReLUs are most of what the naive form keeps; inputs of the
    # recomputation are counted once a use here, though they share their memory
    assert saved_bytes(True) < 0.6 * saved_bytes(False)


def test_memory_efficient_with_dropout_draws_the_same_masks():
    losses = []
    for efficient in (False, True):
        torch.manual_seed(0)
        network = create_model("densenet_bc_22_12", memory_efficient=efficient, dropout=0.3).train()
        torch.manual_seed(1)
        loss = network(torch.ones(2, 3, 32, 32)).sum()
        loss.backward()
        losses.append((loss.item(), next(network.parameters()).grad.norm().item()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("densenet_bc_22_12", 2 * 9 + 2), ("densenet_40_12", 36 + 2), ("densenet121", 2 * 58 + 3)],
)
def test_dropout_follows_every_convolution_but_the_stem(name, expected):
    network = create_model(name, dropout=0.2)
    assert sum(isinstance(m, nn.Dropout) and m.p == 0.2 for m in network.modules()) == expected


def test_densenet_fan_out_init():
    torch.manual_seed(0)
    weight = create_model("densenet121").body.stem.conv.weight  # 64 maps of 7×7
    assert weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)
    assert weight.mean().item() == pytest.approx(0, abs=0.002)


def test_densenet_layer_sees_all_maps_before_it():
    network = create_model("densenet_40_12")
    widths = [layer.norm1.num_features for layer in network.body.block1.layers]
    assert widths == [16 + 12 * i for i in range(12)]


# --- MobileNets and EfficientNet-Lite


def test_same_padding_is_tensorflows():
    """A 3×3/2 kernel on 4 pixels: TensorFlow pads one pixel at the end, so outputs are centred on pixels 1 and 3."""
    conv = Conv2dSame(1, 1, 3, stride=2, bias=False)
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, 1, 1] = 1.0
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert conv(x).flatten().tolist() == [5.0, 7.0, 13.0, 15.0]
    assert conv(torch.zeros(1, 1, 7, 5)).shape == (1, 1, 4, 3)
    five = Conv2dSame(1, 1, 5, stride=2, bias=False)
    nn.init.zeros_(five.weight)
    five.weight.data[0, 0, 2, 2] = 1.0  # pads (1, 2): centred on pixels 1 and 3
    assert five(x).flatten().tolist() == [5.0, 7.0, 13.0, 15.0]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v1_025", {"activation": "relu6"}),
        ("mobilenet_v1_025", {"padding": "same"}),
        ("mobilenet_v2_035", {"padding": "same"}),
        ("mobilenet_v2_035", {"norm_eps": 1e-1}),
        ("mobilenet_v3_small_035", {"padding": "same"}),
        ("mobilenet_v3_small_035", {"se_before_activation": True}),
    ],
)
def test_options_change_the_function_and_not_the_weights(name, options):
    plain = randomised(create_model(name)).eval()
    other = create_model(name, **options).eval()
    other.load_state_dict(
        {k: plain.state_dict()[mine] for k, mine in zip(other.state_dict(), plain.state_dict(), strict=True)}
    )
    x = 5 * torch.randn(1, 3, 64, 64)
    assert not torch.allclose(plain(x), other(x), rtol=1e-3)
    assert other.options.items() >= options.items()


def test_inverted_residual_adds_its_input_only_when_the_shape_stays():
    network = create_model("mobilenet_v2")
    residual = [m.residual for m in network.modules() if isinstance(m, InvertedResidual)]
    assert residual == [0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("value", "expected"), [(11.2, 16), (8.4, 8), (24 * 1.4, 32), (16 * 0.75, 16), (3, 8), (44.8, 48)]
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected


def test_batch_norm_of_the_tf_families():
    for name in ("efficientnet_lite0", "mobilenet_v3_small"):
        assert {norm.eps for norm in batch_norms(create_model(name))} == {1e-3}
    assert {norm.eps for norm in batch_norms(create_model("mobilenet_v2", norm_eps=1e-3))} == {1e-3}


# --- the registry


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("mobilenetv2_100", "mobilenet_v2"),
        ("tf_mobilenetv3_small_minimal_100", "mobilenet_v3_small_minimal"),
        ("tf_efficientnet_lite0", "efficientnet_lite0"),
        ("densenet264_48", "densenet_cosine_264_48"),
        ("ResNet50", "resnet50"),
        ("efficientnet-b0", "efficientnet_b0"),
        ("resnet110", "resnet110_cifar"),
    ],
)
def test_aliases_resolve(alias, name):
    assert find(alias).name == name


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "densnet121"}, "did you mean 'densenet121'"),
        ({"name": "DenseNet 121"}, "did you mean 'densenet121'"),
        ({"name": "shufflenet_v1"}, "there are shufflenet_v1_g1_x1_0, "),
        ({"name": "seresnext50"}, "there is seresnext50_32x4d"),
        ({"name": 3}, "is a text, not 3"),
        ({"name": "densenet121", "in_chans": 1}, "here it is called 'in_channels'"),
        ({"name": "zzz"}, "`taxonet models`"),
        ({"name": "densenet121", "memory_eficient": True}, "did you mean 'memory_efficient'"),
        ({"name": "densenet121", "memory_efficient": "yes"}, "must be True or False"),
        ({"name": "densenet121", "dropout": 1.5}, "at least 0 and below 1"),
        ({"name": "densenet121", "dropout": float("nan")}, "must be a number"),
        ({"name": "densenet121", "growth": 12}, "has no option 'growth'"),
        ({"name": "mobilenet_v1", "activation": "relu7"}, "did you mean 'relu"),
        ({"name": "densenet121", "num_classes": 0}, "num_classes is 0"),
        ({"name": "densenet121", "num_classes": 10**12}, "num_classes is"),
        ({"name": "densenet121", "in_channels": -1}, "in_channels is -1"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        create_model(**arguments)
    assert "\n" not in str(caught.value)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="registered twice"):
        register("densenet", find("densenet121").network, {"densenet121": {}})
    with pytest.raises(ValueError, match="leads nowhere"):
        register("densenet", find("densenet121").network, {}, {"new": "nothing"})


def test_list_models():
    assert list_models("densenet1*") == ["densenet121", "densenet169", "densenet161"]
    assert list_models("mobilenetv2_100") == ["mobilenet_v2"]
    assert list_models("nothing*") == []
