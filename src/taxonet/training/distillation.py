"""Distillation: a student learns from the answers of a teacher, any bundle that knows the student's classes."""

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxonet.errors import UsageError, nearest
from taxonet.images import Augmentation, Preprocessing
from taxonet.images.preprocessing import to_array
from taxonet.networks.layers import Network
from taxonet.weights.networks import open_model

Pixels = NDArray[np.uint8]


class Teacher:
    """A network whose answers are learnt: its classes matched by name, its pictures prepared as it is used to."""

    def __init__(self, name: str, network: Network, preprocessing: Preprocessing, columns: Sequence[int]) -> None:
        self.name = name
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.preprocessing = preprocessing
        self.columns = torch.tensor(list(columns))

    @classmethod
    def open(cls, model: str | os.PathLike[str], classes: Sequence[str]) -> "Teacher":
        """Open a bundle or a name of the catalogue as a teacher of `classes`.

        Raises:
            UsageError: it does not know one of the classes, or there is no such model.
            BundleError: the file is not a bundle.
        """
        info, network = open_model(model)
        places = {name: place for place, name in enumerate(info.classes)}
        unknown = [name for name in classes if name not in places]
        if unknown:
            rest = f" nor {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise UsageError(
                f"the teacher {model} does not know the class '{unknown[0]}'{rest}{nearest(unknown[0], places)}"
            )
        return cls(str(model), network, Preprocessing.parse(info.preprocessing), [places[name] for name in classes])

    @cached_property
    def digest(self) -> str:
        """A hash of the weights, by which a resumed run knows its teacher again."""
        digest = hashlib.sha256()
        for key, value in self.network.state_dict().items():
            digest.update(key.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, student's classes) of normalised pictures (N, C, H, W)."""
        answers: Tensor = self.network(images)
        return answers.index_select(1, self.columns.to(answers.device))


class Rendering:
    """One augmented picture in the sizes and colours of student and teacher.

    The picture is augmented once, at the larger of both sizes, and made smaller for the other: both see the same
    part, colours and erased rectangle, which is what makes the teacher's answer one about the student's picture
    (Beyer et al. 2022, arXiv 2106.05237, §3).
    """

    def __init__(self, augmentation: Augmentation, student: Preprocessing, teacher: Preprocessing) -> None:
        self.student, self.teacher = student, teacher
        own, other = student.output_size, teacher.output_size
        ratio = max(1.0, other[0] / own[0], other[1] / own[1])
        self.augmentation = augmentation if ratio == 1 else augmentation.scaled(ratio)

    def __call__(self, image: PIL.Image.Image, rng: np.random.Generator) -> tuple[Pixels, Pixels]:
        """Pixels (H, W, C) for the student and for the teacher."""
        pixels = self.augmentation(image, rng)
        return _fitted(pixels, self.student), _fitted(pixels, self.teacher)


def _fitted(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    height, width = preprocessing.output_size
    if pixels.shape == (height, width, preprocessing.channels):
        return pixels
    image = PIL.Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    image = image.convert("L" if preprocessing.channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
    return to_array(image)
