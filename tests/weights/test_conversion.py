"""Weights of other libraries find their places by name, whatever their order, or are refused."""

import random
import re

import numpy as np
import pytest
import torch

from taxonet.errors import BundleError
from taxonet.images import Preprocessing
from taxonet.networks import create_model
from taxonet.networks.layers import batch_norms
from taxonet.networks.registry import find
from taxonet.weights.conversion import COUNTER, convert, own_modules
from taxonet.weights.layouts import layouts_of, preprocessing_of
from taxonet.weights.networks import TORCHVISION_PREPROCESSING, find_pretrained

FOREIGN = [
    ("mobilenet_v2", "torchvision"),
    ("mobilenet_v2_035", "torchvision"),
    ("densenet121", "torchvision"),
    ("densenet_bc_22_12", "torchvision"),
    ("densenet_40_12", "torchvision"),
    ("dpn68b", "cadene"),
    ("mobilenet_v3_large", "torchvision"),
    ("mobilenet_v3_small", "torchvision"),
    ("mobilenet_v3_small_minimal", "torchvision"),
    ("efficientnet_lite0", "lukemelas"),
    ("efficientnet_lite0", "timm"),
    ("mobilenet_v1_025", "timm"),
    ("mobilenet_v2_035", "timm"),
    ("mobilenet_v3_small", "timm"),
    ("resnet18", "torchvision"),
    ("resnet50_v1", "torchvision"),
    ("resnet20_cifar", "akamaster"),
    ("preresnet50", "timm"),
    ("resnext50_32x4d", "torchvision"),
    ("seresnet50", "cadene"),
    ("seresnet50_v15", "timm"),
    ("efficientnet_b0", "torchvision"),
    ("efficientnet_b0", "lukemelas"),
    ("efficientnet_b0", "timm"),
    ("mnasnet0_35", "torchvision"),
    ("mnasnet0_35", "timm"),
    ("mnasnet_small_timm", "timm"),
    ("shufflenet_v2_x0_5", "torchvision"),
    ("shufflenet_v2_x1_0_megvii", "megvii"),
    ("googlenet_torchvision", "torchvision"),
    ("googlenet", "caffe"),
    ("alexnet_bvlc", "caffe"),
]

# some names of the published files, written down from them
PUBLISHED = {
    ("mobilenet_v2", "torchvision"): {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.1.conv.2.running_mean": (16,),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.17.conv.2.weight": (320, 960, 1, 1),
        "features.18.1.running_var": (1280,),
        "classifier.1.weight": (1000, 1280),
    },
    ("densenet121", "torchvision"): {
        "features.conv0.weight": (64, 3, 7, 7),
        "features.norm0.bias": (64,),
        "features.denseblock1.denselayer1.norm1.weight": (64,),
        "features.denseblock1.denselayer6.conv1.weight": (128, 224, 1, 1),
        "features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3),
        "features.transition3.conv.weight": (512, 1024, 1, 1),
        "features.norm5.running_mean": (1024,),
        "classifier.bias": (1000,),
    },
    ("mobilenet_v3_large", "torchvision"): {
        "features.0.0.weight": (16, 3, 3, 3),
        "features.1.block.0.0.weight": (16, 1, 3, 3),
        "features.1.block.1.0.weight": (16, 16, 1, 1),
        "features.4.block.2.fc1.weight": (24, 72, 1, 1),
        "features.4.block.2.fc2.bias": (72,),
        "features.4.block.3.1.weight": (40,),
        "features.16.0.weight": (960, 160, 1, 1),
        "classifier.0.weight": (1280, 960),
        "classifier.3.bias": (1000,),
    },
    ("resnet20_cifar", "akamaster"): {
        "conv1.weight": (16, 3, 3, 3),
        "layer1.0.bn2.running_var": (16,),
        "layer3.2.conv2.weight": (64, 64, 3, 3),
        "linear.weight": (10, 64),
    },
    ("googlenet_torchvision", "torchvision"): {
        "conv1.conv.weight": (64, 3, 7, 7),
        "inception3a.branch1.bn.weight": (64,),
        "inception4e.branch3.1.conv.weight": (128, 32, 3, 3),
        "inception5b.branch4.1.bn.running_mean": (128,),
        "fc.weight": (1000, 1024),
    },
    ("resnet18", "torchvision"): {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_mean": (128,),
        "fc.bias": (1000,),
    },
    ("efficientnet_lite0", "lukemelas"): {
        "_conv_stem.weight": (32, 3, 3, 3),
        "_blocks.0._depthwise_conv.weight": (32, 1, 3, 3),
        "_blocks.1._expand_conv.weight": (96, 16, 1, 1),
        "_blocks.15._bn2.running_var": (320,),
        "_fc.weight": (1000, 1280),
    },
}


def foreign_state(name, layout, num_classes=None, seed=0):
    """A network with random weights, and its tensors under the names of another library, in a random order."""
    torch.manual_seed(seed)
    network = create_model(name, num_classes=num_classes)
    for norm in batch_norms(network):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    theirs = dict(zip(own_modules(network), layouts_of(find(name).family)[layout](network), strict=True))
    items = []
    for key, tensor in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        items.append((f"{theirs[module]}.{leaf}", tensor))
    random.Random(seed).shuffle(items)
    assert len(dict(items)) == len(items)
    return network, dict(items)


def weights(state):
    return {key: tensor for key, tensor in state.items() if COUNTER not in key}


def same(left, right):
    return left.keys() == right.keys() and all(value.equal(right[key]) for key, value in left.items())


@pytest.mark.parametrize(("name", "layout"), FOREIGN)
def test_every_layout_leads_back(name, layout):
    network, state = foreign_state(name, layout)
    found, renamed = convert(state, create_model(name), find(name).family)
    assert found == layout
    assert renamed.keys() == network.state_dict().keys()
    assert same(weights(renamed), weights(network.state_dict()))


@pytest.mark.parametrize(("name", "layout"), PUBLISHED)
def test_layouts_have_the_names_of_the_published_files(name, layout):
    _, state = foreign_state(name, layout)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    expected = PUBLISHED[name, layout]
    assert {key: shapes.get(key) for key in expected} == expected


def test_files_without_counters_and_with_other_classes():
    network, state = foreign_state("mobilenet_v2_035", "torchvision", num_classes=7)
    layout, renamed = convert(weights(state), create_model("mobilenet_v2_035", num_classes=3), "mobilenet_v2")
    assert layout == "torchvision"
    assert renamed["classifier.weight"].equal(network.classifier.weight)  # its own shape is kept
    assert same(weights(renamed), weights(network.state_dict()))


def test_torchvision_s_oldest_densenet_names():
    network, state = foreign_state("densenet_bc_22_12", "torchvision")
    old = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): tensor for key, tensor in state.items()}
    assert any("denselayer1.norm.1." in key for key in old)
    _, renamed = convert(old, create_model("densenet_bc_22_12"), "densenet")
    assert same(weights(renamed), weights(network.state_dict()))


def test_our_own_names_need_no_layout():
    network = create_model("mobilenet_v1_025", num_classes=4)
    layout, renamed = convert(network.state_dict(), create_model("mobilenet_v1_025"), "mobilenet_v1")
    assert layout == "taxonet"
    assert same(renamed, network.state_dict())


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("mobilenet_v2_035", "mobilenet_v2_050", r"the weight \S+ has the shape \(.*\), the network needs \(.*\)"),
        ("mobilenet_v2_035", "densenet_bc_22_12", r"not those of densenet_bc_22_12: of \d+ names 0 fit the nearest"),
        ("densenet_bc_22_12", "densenet_bc_40_12", r"not those of densenet_bc_40_12: of \d+ names \d+ fit the nearest"),
        ("densenet_bc_40_12", "densenet_bc_22_12", r"known layout \(torchvision; tried: taxonet, torchvision\)"),
        ("densenet121", "densenet169", r"not those of densenet169"),
        ("mobilenet_v3_small", "mobilenet_v3_large", r"not those of mobilenet_v3_large"),
    ],
)
def test_weights_of_another_network(source, target, sentence):
    _, state = foreign_state(source, "torchvision")
    with pytest.raises(BundleError, match=sentence):
        convert(state, create_model(target), find(target).family)


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_one_tensor_too_few_or_too_many(change):
    _, state = foreign_state("mobilenet_v2_035", "torchvision")
    if change == "missing":
        del state["features.2.conv.0.0.weight"]
    else:
        state["features.2.conv.0.0.bias"] = torch.zeros(1)
    with pytest.raises(BundleError, match="not those of mobilenet_v2_035"):
        convert(state, create_model("mobilenet_v2_035"), "mobilenet_v2")


def test_a_body_that_does_not_fit_is_refused_even_where_the_head_does():
    _, state = foreign_state("mobilenet_v2_035", "torchvision")
    key = "features.1.conv.1.weight"
    state[key] = state[key][:4]
    with pytest.raises(BundleError, match=r"the weight \S+ has the shape \(4, "):
        convert(state, create_model("mobilenet_v2_035"), "mobilenet_v2")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "module."])
def test_a_torchvision_checkpoint_to_start_from(tmp_path, wrapper):
    network, state = foreign_state("mobilenet_v2_035", "torchvision", num_classes=1000)
    if wrapper == "module.":
        state = {wrapper + key: tensor for key, tensor in state.items()}
    torch.save({wrapper: state} if wrapper == "state_dict" else state, tmp_path / "weights.pth")
    found = find_pretrained("mobilenet_v2_035", tmp_path / "weights.pth")
    assert same(weights(found.state), weights(network.state_dict()))
    assert found.preprocessing == TORCHVISION_PREPROCESSING
    assert found.provenance["layout"] == "torchvision"

    fresh = create_model("mobilenet_v2_035", num_classes=3)
    assert found.load_into(fresh, tuple("abc")) is False
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert fresh.eval().forward_features(images).equal(network.eval().forward_features(images))


@pytest.mark.parametrize("family", ["alexnet", "vgg", "googlenet"])
def test_caffe_s_pictures_run_from_0_to_255_less_their_mean(family):
    preprocessing = Preprocessing.parse(preprocessing_of(family, "caffe"))
    size = preprocessing.output_size[0]
    assert size == (227 if family == "alexnet" else 224)
    white = preprocessing.normalized(np.full((1, size, size, 3), 255, np.uint8))
    means = (123.68, 116.779, 103.939) if family == "vgg" else (123, 117, 104)
    assert np.abs(white[0, :, 0, 0] - (255 - np.array(means))).max() < 0.01
