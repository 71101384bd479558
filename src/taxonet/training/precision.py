"""`precision = auto`: float32 or bfloat16, by measuring training steps of this network on this machine."""

import statistics
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from taxonet.networks.layers import Network
from taxonet.networks.memory import free_cached_memory, is_out_of_memory

WORTH = 1.1  # bfloat16 rounds to 8 bits; it is taken where it makes steps this many times as fast
STEPS = 3
MOST_PICTURES = 16


def measure_precision(network: Network, channels: int, size: Sequence[int], batch_size: int) -> tuple[str, str]:
    """The precision for training `network`, whose gradients are used up, and the reason with both figures."""
    count = max(2, min(batch_size, MOST_PICTURES))
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = network.classifier.weight.device
    images = torch.rand(count, channels, *size, device=device).contiguous(memory_format=torch.channels_last)
    try:
        seconds = {word: _median_step(network, images, word) for word in ("float32", "bfloat16")}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        seconds = {}
    if not seconds:
        free_cached_memory()
        return "float32", f"not measured: memory does not hold a step on {count} pictures"
    ratio = seconds["float32"] / seconds["bfloat16"]
    figures = f"a step on {count} pictures takes {seconds['float32']:.3f} s in float32 and {seconds['bfloat16']:.3f} s"
    if ratio >= WORTH:
        return "bfloat16", f"measured here: {figures} in bfloat16, {ratio:.1f} times as fast"
    return "float32", f"measured here: {figures} in bfloat16, which is not {WORTH} times as fast"


def _median_step(network: Network, images: torch.Tensor, word: str) -> float:
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)
    times = []
    for _ in range(STEPS + 1):  # the first makes the kernels
        start = time.perf_counter()
        network.zero_grad(set_to_none=True)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=word == "bfloat16"):
            logits = network(images)
        F.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        if images.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])
