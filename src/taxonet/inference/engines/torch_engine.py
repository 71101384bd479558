"""The reference: the network itself, run by torch."""

import threading
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from taxonet.images import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

    from taxonet.networks.layers import Network


class TorchEngine:
    """The network itself, channels-last, in evaluation mode, on whatever device it is."""

    name = "torch"
    streams = 1  # a call uses all cores already

    def __init__(self, network: "Network", preprocessing: Preprocessing | str) -> None:
        import torch

        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = Preprocessing.parse(preprocessing) if isinstance(preprocessing, str) else preprocessing
        self._lock = threading.Lock()

    @property
    def uses_cores(self) -> bool:
        """Whether a call needs the cores of the CPU; a GPU leaves them to the reading of pictures."""
        return bool(next(self.network.parameters()).device.type == "cpu")

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, classes) of pixels (N, H, W, C); in halves where memory does not hold them at once."""
        import torch

        from taxonet.networks.memory import in_halves

        images = torch.from_numpy(self.preprocessing.normalized(pixels))
        with self._lock, torch.inference_mode():
            training = self.network.training
            self.network.eval()
            try:
                logits: NDArray[np.float32] = in_halves(self._logits, images).numpy()
            finally:
                self.network.train(training)
        return logits

    def _logits(self, images: "Tensor") -> "Tensor":
        import torch

        batch = images.to(next(self.network.parameters()).device).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.network(batch).cpu()
        return logits
