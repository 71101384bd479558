"""How ShuffleNet v2 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.networks.shufflenet_v2 import ShuffleUnit

SHORTCUT, BRANCH = (0, 1, 2, 3), (0, 1, 3, 4, 5, 6)  # positions of convolutions and norms, ReLUs are counted too


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `shufflenet_v2_x*`: `stage2.N.branch1` is the shortcut, `branch2` the branch."""
    yield from ("conv1.0", "conv1.1")
    for stage, units in enumerate(list(network.body.children())[1:-1], start=2):
        for number, unit in enumerate(units.children()):
            if isinstance(unit, ShuffleUnit) and unit.downsamples:
                yield from (f"stage{stage}.{number}.branch1.{i}" for i in SHORTCUT)
            yield from (f"stage{stage}.{number}.branch2.{i}" for i in BRANCH)
    yield from ("conv5.0", "conv5.1", "fc")


def megvii(network: Network) -> Iterator[str]:
    """The authors' files: `features.N.branch_proj` is the shortcut, `branch_main` the branch."""
    yield from ("first_conv.0", "first_conv.1")
    for number, unit in enumerate(m for m in network.modules() if isinstance(m, ShuffleUnit)):
        if unit.downsamples:
            yield from (f"features.{number}.branch_proj.{i}" for i in SHORTCUT)
        yield from (f"features.{number}.branch_main.{i}" for i in BRANCH)
    yield from ("conv_last.0", "conv_last.1", "classifier.0")


LAYOUTS = {"torchvision": torchvision, "megvii": megvii}
