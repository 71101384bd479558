"""How SENet weights of other libraries are named."""

from collections.abc import Callable, Iterator

from taxonet.networks.layers import Network
from taxonet.networks.residual import Bottleneck


def _names(network: Network, stem: Callable[[int], Iterator[str]], squeeze: str, classifier: str) -> Iterator[str]:
    """`stem` names a number of convolutions with norms.

    Nothing for other placements of the excitation and for the CIFAR nets, which no port has.
    """
    parts = dict(network.body.named_children())
    convolutions = len([name for name, _ in parts["stem"].named_children() if name.startswith("conv")])
    stages = [stage for name, stage in parts.items() if name.startswith("stage")]
    yield from stem(convolutions)
    for s, stage in enumerate(stages, start=1):
        for b, unit in enumerate(stage.children()):
            if not isinstance(unit, Bottleneck):
                return
            prefix = f"layer{s}.{b}"
            for number in range(1, 4):
                yield from (f"{prefix}.conv{number}", f"{prefix}.bn{number}")
            yield from (f"{prefix}.{squeeze}.fc1", f"{prefix}.{squeeze}.fc2")
            if list(unit.shortcut.parameters()):
                yield from (f"{prefix}.downsample.0", f"{prefix}.downsample.1")
    yield classifier


def _cadene_stem(convolutions: int) -> Iterator[str]:
    for number in range(1, convolutions + 1):
        yield from (f"layer0.conv{number}", f"layer0.bn{number}")


def _timm_stem(convolutions: int) -> Iterator[str]:
    if convolutions > 1:  # SENet-154's 3×3 are one sequence there, but for the last norm; ReLUs are counted too
        yield from ("conv1.0", "conv1.1", "conv1.3", "conv1.4", "conv1.6", "bn1")
    else:
        yield from ("conv1", "bn1")


def cadene(network: Network) -> Iterator[str]:
    """Cadene's conversions of the authors' nets, which timm has as `legacy_*`: `layer1.0.se_module.fc1`."""
    return _names(network, _cadene_stem, "se_module", "last_linear")


def timm(network: Network) -> Iterator[str]:
    """timm's own `seresnet*` and `senet154`: `layer1.0.se.fc1`."""
    return _names(network, _timm_stem, "se", "fc")


LAYOUTS = {"cadene": cadene, "timm": timm}
