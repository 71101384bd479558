"""From a network to the graph that the other engines run: pixels (N, H, W, C) uint8 in, logits (N, classes) out."""

from typing import TYPE_CHECKING, Any

from taxonet.images import Preprocessing
from taxonet.inference.engines.libraries import import_openvino

if TYPE_CHECKING:
    import torch

    from taxonet.networks.layers import Network

INPUT, OUTPUT = "pixels", "logits"


def with_preprocessing(network: "Network", preprocessing: Preprocessing) -> "torch.nn.Module":
    """The network in evaluation mode behind scaling, normalisation and layout: `Preprocessing.normalized` in torch."""
    import torch
    from torch import nn

    class FromPixels(nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.network = network
            for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
                self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

        def forward(self, pixels: torch.Tensor) -> Any:
            images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
            return self.network((images - self.mean) / self.std)

    return FromPixels().eval()


def to_openvino(network: "Network", preprocessing: Preprocessing) -> Any:
    """An `openvino.Model` of the network on the CPU, for any number of pictures at a time."""
    import torch

    openvino = import_openvino()
    height, width = preprocessing.output_size
    module = with_preprocessing(network, preprocessing)
    example = torch.zeros(2, height, width, preprocessing.channels, dtype=torch.uint8)
    with torch.no_grad():
        model = openvino.convert_model(module, example_input=example, input=[-1, height, width, preprocessing.channels])
    model.input(0).get_tensor().set_names({INPUT})
    model.output(0).get_tensor().set_names({OUTPUT})
    return model
