"""How DPN weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.dpn import DualPathUnit, TwoConvolutions
from taxonet.networks.layers import Network


def _names(network: Network, classifier: str) -> Iterator[str]:
    yield from ("features.conv1_1.conv", "features.conv1_1.bn")
    for number, units in enumerate(list(network.body.children())[1:-1], start=2):
        for place, unit in enumerate(units.children(), start=1):
            assert isinstance(unit, DualPathUnit)
            prefix = f"features.conv{number}_{place}"
            if unit.project is not None:  # the name says whether it strides
                stride = 1 if number == 2 else 2
                yield from (f"{prefix}.c1x1_w_s{stride}.bn", f"{prefix}.c1x1_w_s{stride}.conv")
            for part in ("c1x1_a", "c3x3_b"):
                yield from (f"{prefix}.{part}.bn", f"{prefix}.{part}.conv")
            two = isinstance(unit.expand, TwoConvolutions)
            last = ("c1x1_c.bn", "c1x1_c1", "c1x1_c2") if two else ("c1x1_c.bn", "c1x1_c.conv")
            yield from (f"{prefix}.{name}" for name in last)
    yield from ("features.conv5_bn_ac.bn", classifier)


def timm(network: Network) -> Iterator[str]:
    """timm's `dpn*`: `features.conv2_1.c1x1_a.conv`; the classifier is a 1×1 convolution."""
    return _names(network, "classifier")


def cadene(network: Network) -> Iterator[str]:
    """Cadene's conversions: as timm, but the classifier is `last_linear`."""
    return _names(network, "last_linear")


LAYOUTS = {"timm": timm, "cadene": cadene}
