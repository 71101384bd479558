"""What the training pictures look like to the network: kept in the bundle, so a server can tell when others come."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from taxonet.data import Sample, read_ahead
from taxonet.errors import ImageError
from taxonet.images import DEFAULT_LIMITS, Preprocessing
from taxonet.images.statistics import features, statistics

PICTURES = 128  # evenly out of all; means of them are known to a tenth of the spread


def input_statistics(samples: Sequence[Sample], preprocessing: Preprocessing) -> dict[str, Any]:
    """Mean and spread of brightness, contrast, colourfulness and sharpness; nothing where no picture can be read."""

    def read(sample: Sample) -> list[float] | None:
        try:
            return features(preprocessing.pixels(sample.path, DEFAULT_LIMITS))
        except ImageError:
            return None

    places = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), PICTURES)).round().astype(int))
    rows = [row for row in read_ahead(read, [samples[place] for place in places]) if row is not None]
    return {"inputs": statistics(rows)} if rows else {}
