"""How NFNet weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.networks.nfnet import NFBlock

BLOCK = ("conv1", "conv2", "conv2b", "conv3", "attn_last.fc1", "attn_last.fc2")


def timm(network: Network) -> Iterator[str]:
    """timm's `dm_nfnet_f*`: `stages.S.B.conv2b`; a block itself holds its `skipinit_gain`."""
    yield from (f"stem.conv{number}" for number in range(1, 5))
    for number, blocks in enumerate(list(network.body.children())[1:-1]):
        for place, block in enumerate(blocks.children()):
            assert isinstance(block, NFBlock)
            prefix = f"stages.{number}.{place}"
            yield prefix
            yield from (f"{prefix}.{name}" for name in BLOCK)
            if block.project is not None:
                yield f"{prefix}.downsample.conv"
    yield from ("final_conv", "head.fc")


LAYOUTS = {"timm": timm}
