"""From a network to the graph that the other engines run: pixels (N, H, W, C) uint8 in, logits (N, classes) out.

Height, width and channels are those of the preprocessing, N is free. Scaling and normalisation are the first nodes, the
same operations in the same order as the reference's, so what a compiler makes of them is its own business.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taxonet.images import Preprocessing
from taxonet.inference.engines.libraries import check_onnx, import_openvino

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
    """An `openvino.Model` of the network, which is on the CPU."""
    import torch

    openvino = import_openvino()
    example = _example(preprocessing)
    with _quiet(), torch.no_grad():
        module = with_preprocessing(network, preprocessing)
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        shape = [-1, *example.shape[1:]]
        model = openvino.convert_model(traced, example_input=example, input=shape)
    model.input(0).get_tensor().set_names({INPUT})
    model.output(0).get_tensor().set_names({OUTPUT})
    return model


def to_pt2(network: "Network", preprocessing: Preprocessing) -> "torch.export.ExportedProgram":
    """The network as torch's own exported program."""
    import torch
    from torch.export import Dim

    with _quiet(), torch.no_grad():
        return torch.export.export(
            with_preprocessing(network, preprocessing),
            (_example(preprocessing),),
            dynamic_shapes=({0: Dim.DYNAMIC},),
        )


def to_onnx(network: "Network", preprocessing: Preprocessing) -> "torch.onnx.ONNXProgram":
    """The network as an ONNX program; UsageError where the extra `onnx` is missing."""
    check_onnx()
    import torch

    program = to_pt2(network, preprocessing)
    with _quiet():
        found = torch.onnx.export(
            program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=None, verbose=False
        )
    assert found is not None
    return found


def _example(preprocessing: Preprocessing) -> "torch.Tensor":
    """Two black pictures: with one, an exporter would take the number for a constant."""
    import torch

    return torch.zeros(2, *preprocessing.output_size, preprocessing.channels, dtype=torch.uint8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say to their developers: the result is compared with the reference instead."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
