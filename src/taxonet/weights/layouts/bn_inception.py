"""How BN-Inception weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.bn_inception import MODULES
from taxonet.networks.layers import Network, SqueezeExcite
from taxonet.weights.layouts import caffe_preprocessing


def cadene(network: Network) -> Iterator[str]:
    """Cadene's `bninception`, whose convolutions have biases (`conv_bias=True`); it has none with excitations."""
    if any(isinstance(module, SqueezeExcite) for module in network.modules()):
        return
    units = ["conv1_7x7_s2", "conv2_3x3_reduce", "conv2_3x3"]
    for name, (one, *_, projection) in MODULES.items():
        branches = ["1x1"] if one else []
        branches += ["3x3_reduce", "3x3", "double_3x3_reduce", "double_3x3_1", "double_3x3_2"]
        branches += ["pool_proj"] if projection else []
        units += [f"inception_{name}_{branch}" for branch in branches]
    for unit in units:
        yield from (unit, f"{unit}_bn")
    yield "last_linear"


LAYOUTS = {"cadene": cadene}

PREPROCESSING = {"cadene": caffe_preprocessing((128.0, 117.0, 104.0))}
BGR = {"cadene": True}
