"""How ResNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.networks.residual import PreActivationUnit


def _units(network: Network) -> Iterator[tuple[int, int, object]]:
    """Stage from 1, unit from 0, and the unit."""
    stages = [stage for name, stage in network.body.named_children() if name.startswith("stage")]
    for number, stage in enumerate(stages, start=1):
        for place, unit in enumerate(stage.children()):
            yield number, place, unit


def _residual(network: Network, projection: tuple[str, str], classifier: str) -> Iterator[str]:
    yield from ("conv1", "bn1")
    for stage, place, unit in _units(network):
        prefix = f"layer{stage}.{place}"
        for number in range(1, 4):
            if hasattr(unit, f"conv{number}"):
                yield from (f"{prefix}.conv{number}", f"{prefix}.bn{number}")
        if list(unit.shortcut.parameters()):  # type: ignore[attr-defined]
            yield from (f"{prefix}.{name}" for name in projection)
    yield classifier


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's and timm's ResNets: `layerS.B.conv1`."""
    return _residual(network, ("downsample.0", "downsample.1"), "fc")


def akamaster(network: Network) -> Iterator[str]:
    """CIFAR nets of akamaster/pytorch_resnet_cifar10 and of kuangliu/pytorch-cifar: as torchvision, but `linear`."""
    return _residual(network, ("shortcut.0", "shortcut.1"), "linear")


def timm_v2(network: Network) -> Iterator[str]:
    """timm's `resnetv2_*`: `stages.S.blocks.B.norm1`."""
    yield "stem.conv"
    for stage, place, unit in _units(network):
        assert isinstance(unit, PreActivationUnit)
        prefix = f"stages.{stage - 1}.blocks.{place}"
        yield f"{prefix}.norm1"
        yield from (f"{prefix}.{name}" for name, _ in unit.layers.named_children() if not name.startswith("act"))
        if unit.project is not None:
            yield f"{prefix}.downsample.conv"
    yield from ("norm", "head.fc")


def _of(network: Network) -> bool:
    return any(isinstance(unit, PreActivationUnit) for *_, unit in _units(network))


def timm(network: Network) -> Iterator[str]:
    """timm's names: those of torchvision, or of `resnetv2_*` for the pre-activation nets."""
    return timm_v2(network) if _of(network) else torchvision(network)


def plain(network: Network) -> Iterator[str]:
    """torchvision's names, none for the pre-activation nets, which it does not have."""
    return iter(()) if _of(network) else torchvision(network)


def cifar(network: Network) -> Iterator[str]:
    """akamaster's names, none for the pre-activation nets."""
    return iter(()) if _of(network) else akamaster(network)


LAYOUTS = {"torchvision": plain, "akamaster": cifar, "timm": timm}

# akamaster's nets are trained on CIFAR-10 with ImageNet's mean and deviation
PREPROCESSING = {"akamaster": "exif | rgb | resize(32, bicubic) | center_crop(32) | normalize(imagenet)"}
