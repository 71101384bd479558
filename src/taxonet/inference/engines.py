"""Engines: what runs a network. An engine takes prepared pictures and gives logits."""

import threading
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from taxonet.errors import UsageError, nearest

if TYPE_CHECKING:
    from taxonet.networks.layers import Network

ENGINES = ("torch",)


class Engine(Protocol):
    """What runs a model."""

    name: str

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of normalised images (N, C, H, W)."""


class TorchEngine:
    """The reference: the network itself, channels-last, in evaluation mode."""

    name = "torch"

    def __init__(self, network: "Network") -> None:
        import torch

        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._lock = threading.Lock()  # one batch at a time: a batch uses all cores already

    def run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, classes) of normalised images (N, C, H, W)."""
        import torch

        with self._lock, torch.inference_mode():
            training = self.network.training
            self.network.eval()
            try:
                batch = torch.from_numpy(images).to(next(self.network.parameters()).device)
                logits: NDArray[np.float32] = (
                    self.network(batch.contiguous(memory_format=torch.channels_last)).cpu().numpy()
                )
            finally:
                self.network.train(training)
        return logits


def check_engine(name: str) -> None:
    """Refuse an engine that is not there."""
    if name not in ("auto", *ENGINES):
        choices = ", ".join(("auto", *ENGINES))
        raise UsageError(f"there is no engine '{name}', it must be one of: {choices}{nearest(name, ENGINES)}")
