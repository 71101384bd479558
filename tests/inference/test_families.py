"""Every family is the same network in every engine: a small variant each, with weights that keep logits about 1.

`pytest tests/inference/test_families.py -s` prints what was measured; `agreement.BOUND` rests on it.
"""

import numpy as np
import pytest
import torch
from tests.golden.weights import weight

from taxonet.images import Preprocessing
from taxonet.inference.agreement import BOUND, compare_logits, shipped
from taxonet.inference.artefacts import open_artefact, write_onnx, write_openvino
from taxonet.inference.conversion import to_onnx, to_openvino
from taxonet.inference.engines import TorchEngine
from taxonet.networks import create_model
from taxonet.sheets import families
from taxonet.weights.bundle import BundleInfo

SMALL = {
    "alexnet": "alexnet",
    "bn_inception": "bn_inception",
    "densenet": "densenet_bc_22_12",
    "dpn": "dpn68b",
    "efficientnet": "efficientnet_b0",
    "efficientnet_lite": "efficientnet_lite0",
    "googlenet": "googlenet",
    "igc": "igc_l24m2_8_ident",
    "igcv3": "igcv3_d",
    "mnasnet": "mnasnet_a1",
    "mobilenet_v1": "mobilenet_v1_025",
    "mobilenet_v2": "mobilenet_v2_035",
    "mobilenet_v3": "mobilenet_v3_large",
    "nfnet": "nfnet_f0",
    "residual_attention": "attention56",
    "resnet": "preresnet50",
    "resnext": "resnext50_32x4d",
    "senet": "seresnet50",
    "shufflenet_v1": "shufflenet_v1_g3_x1_0",
    "shufflenet_v2": "shufflenet_v2_x1_0",
    "vgg": "vgg11_bn",
}
WRITE = {"openvino": (to_openvino, write_openvino, ".xml"), "onnx": (to_onnx, write_onnx, ".onnx")}


def test_no_family_is_left_out():
    assert set(SMALL) == set(families())


@pytest.fixture(scope="module", params=SMALL)
def family(request):
    """A network with its preprocessing, pixels and the reference's logits."""
    network = create_model(SMALL[request.param]).eval()
    network.load_state_dict({key: weight(key, tuple(value.shape)) for key, value in network.state_dict().items()})
    preprocessing = Preprocessing.parse(network.default_preprocessing)
    pixels = shipped(preprocessing)[::3]
    with torch.no_grad():  # the classifier makes up for what the body's scale became
        scale = float(torch.from_numpy(TorchEngine(network, preprocessing).run(pixels)).std())
        network.classifier.weight.div_(scale)
        network.classifier.bias.div_(scale)
    return network, preprocessing, pixels, TorchEngine(network, preprocessing).run(pixels)


@pytest.mark.slow
@pytest.mark.parametrize("to", WRITE)
def test_an_engine_computes_the_family(family, to, tmp_path):
    network, preprocessing, pixels, expected = family
    convert, write, suffix = WRITE[to]
    names = tuple(f"class {number}" for number in range(expected.shape[1]))
    file = tmp_path / f"model{suffix}"
    write(file, convert(network, preprocessing), BundleInfo(network.variant, names, str(preprocessing)))
    engine = open_artefact(file)[1]
    found = np.concatenate([engine.run(pixels[:1]), engine.run(pixels[1:])])  # one alone, several together
    agreement = compare_logits(expected, found)
    relative = agreement.difference / agreement.largest_logit
    print(f"{network.variant:22s} {to:9s} {relative:.1e} of the largest logit {agreement.largest_logit:.2f}")
    assert agreement.holds, str(agreement)
    assert relative < BOUND / 3
