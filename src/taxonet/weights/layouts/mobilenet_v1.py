"""How MobileNet v1 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network

TIMM = (1, 2, 2, 6, 2)  # units with the same output maps


def timm(network: Network) -> Iterator[str]:
    """timm's `mobilenetv1_*`: `blocks.S.B.conv_dw`."""
    yield from ("conv_stem", "bn1")
    for stage, count in enumerate(TIMM):
        for block in range(count):
            yield from (f"blocks.{stage}.{block}.{name}" for name in ("conv_dw", "bn1", "conv_pw", "bn2"))
    yield "classifier"


LAYOUTS = {"timm": timm}
