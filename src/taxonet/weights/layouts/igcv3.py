"""How IGCV3 weights of other libraries are named."""

from collections.abc import Iterator

from taxonet.networks.layers import Network
from taxonet.weights.layouts import staged_inverted_residuals

PARTS = {"expand": "conv1", "depthwise": "conv2", "project": "conv3"}


def pytorchcv(network: Network) -> Iterator[str]:
    """pytorchcv's `igcv3_*`: `features.stage1.unit1.conv1.conv`."""
    yield from ("features.init_block.conv", "features.init_block.bn")
    for stage, block, parts in staged_inverted_residuals(network):
        for part in parts:
            prefix = f"features.stage{stage}.unit{block + 1}.{PARTS[part]}"
            yield from (f"{prefix}.conv", f"{prefix}.bn")
    yield from ("features.final_block.conv", "features.final_block.bn", "output")


LAYOUTS = {"pytorchcv": pytorchcv}
