"""How MnasNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import staged_inverted_residuals
from taxonet.weights.layouts import timm as timm_layout


def torchvision(network: Network) -> Iterator[str]:
    """torchvision's `mnasnet*`: `layers.N`, from the second stage on `layers.N.B.layers.M`; ReLUs are counted too."""
    yield from ("layers.0", "layers.1")
    for stage, number, parts in staged_inverted_residuals(network):
        if stage == 1:  # torchvision writes the first block as plain layers
            yield from (f"layers.{position}" for position in (3, 4, 6, 7))
            continue
        for position, _ in enumerate(parts):
            yield from (f"layers.{stage + 6}.{number}.layers.{3 * position + offset}" for offset in (0, 1))
    yield from ("layers.14", "layers.15", "classifier.1")


def timm(network: Network) -> Iterator[str]:
    """timm's MnasNets; its small one adds the first block's input, the authors' does not and has no layout here."""
    if network.variant != "mnasnet_small":
        yield from timm_layout(network)


LAYOUTS = {"torchvision": torchvision, "timm": timm}
