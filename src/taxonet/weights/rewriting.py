"""A bundle written again with other calibration, and nothing else changed."""

import os
from dataclasses import replace
from pathlib import Path

from taxonet.weights.bundle import read_info, read_tensors, save_bundle


def write_calibration(
    model: str | os.PathLike[str], out: str | os.PathLike[str], temperature: float, threshold: float | None
) -> None:
    """Write the bundle `model` (a path or a catalogue name) to `out` with this temperature and threshold.

    Tensors and all other information stay as they are. `out` may be `model`: a reader, or a killed run, finds the old
    file or the new one. Raises BundleError where `model` is no bundle, UsageError or DataError where `out` cannot be
    written.
    """
    if Path(model).is_file():
        info, tensors = read_info(model), read_tensors(model)
    else:
        from taxonet.weights.networks import open_model

        info, network = open_model(model)
        tensors = network.state_dict()
    save_bundle(out, replace(info, temperature=temperature, threshold=threshold), tensors)
