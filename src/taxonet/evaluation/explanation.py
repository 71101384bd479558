"""`explain`: which places of a photo spoke for an answer, by captum, on exactly the pixels that the network saw.

- `gradcam`: Selvaraju et al. 2017 (arXiv 1610.02391), §3: the maps of a stage, each weighed by its mean gradient.
- `occlusion`: Zeiler and Fergus 2014 (arXiv 1311.2901), §4.2: a patch of the mean colour slides over the photo.
- `integrated_gradients`: Sundararajan et al. 2017 (arXiv 1703.01365), §3: gradients on the way from the mean colour.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from taxonet.data.labels import ClassIndex
from taxonet.errors import DataError, ImageError, UsageError, nearest
from taxonet.images import Source
from taxonet.images.decode import decode_picture
from taxonet.images.geometry import Box
from taxonet.inference import Classifier, load
from taxonet.inference.artefacts import is_artefact

if TYPE_CHECKING:
    from torch import Tensor

    from taxonet.networks.layers import Network

METHODS = ("gradcam", "occlusion", "integrated_gradients")
PATCH = 7  # the occluding patch is 1/7 of the short side and moves by half of itself
STEPS = (64, 256, 1024)  # of the integral, by Gauss and Legendre; more where the shares do not add up …
TOLERANCE = 0.05  # … to the difference of the logits, within this share of it
AT_ONCE = 16  # pictures that the network sees at once
SHOWN = 480  # pixels of the photo's short side that an explanation keeps, to be drawn

Progress = Callable[[int, int], None]  # pictures done, pictures in all


@dataclass(frozen=True)
class Explanation:
    """One photo's answer and the places that spoke for the target.

    `map` is float32 (H, W) and lies on `pixels`, the uint8 (H, W, C) that the network saw. What its values mean:

    - gradcam: at least 0; how much the stage's maps at this place raise the target's logit, enlarged from the stage.
    - occlusion: how far the target's probability falls when a patch covers this place; negative where it rises.
    - integrated_gradients: the pixel's share of the logit, over its channels; the shares add up to the target's logit
      less that of a picture of the mean colour, but for `residual`.
    """

    path: str | None
    label: str  # the answer
    probability: float
    target: str  # the class that is explained
    target_probability: float
    method: str
    layer: str | None  # the stage, with gradcam
    preprocessing: str
    map: NDArray[np.float32]
    pixels: NDArray[np.uint8]
    photo: PIL.Image.Image  # upright, reduced
    photo_size: tuple[int, int]  # width and height of the whole upright photo
    region: Box  # what the network saw of it: left, upper, right, lower in its pixels; zeros beyond its border
    residual: float | None = None  # integrated_gradients: what the sum of the shares misses of the logits' difference

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, without pixels."""
        left, upper, right, lower = self.region
        return {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "target": self.target,
            "target_probability": self.target_probability,
            "method": self.method,
            "layer": self.layer,
            "preprocessing": self.preprocessing,
            "photo": {"width": self.photo_size[0], "height": self.photo_size[1]},
            "seen": {"left": left, "upper": upper, "right": right, "lower": lower},
            "residual": self.residual,
        }


def explain(
    model: str | os.PathLike[str] | Classifier,
    image: Source,
    *,
    method: str = "gradcam",
    target: str | None = None,
    layer: str | None = None,
) -> Explanation:
    """Explain the answer for one photo.

    Args:
        model: a bundle's path, a catalogue name, or an open classifier that torch runs.
        image: a path, encoded bytes, a PIL image or a uint8 array (H, W, 3).
        method: "gradcam", "occlusion" or "integrated_gradients".
        target: the class whose evidence is asked for; by default the answer.
        layer: the stage that gradcam looks at, one of `Network.stages()`; by default the last one.

    Returns:
        An `Explanation`; `.map` is (H, W) on `.pixels`, `write_overlay` draws it.

    Raises:
        UsageError: an unknown method, class or stage, or captum is not installed.
        ImageError: the photo cannot be read.
    """
    classifier = model if isinstance(model, Classifier) else open_network(model)
    return Explainer(classifier, method=method, target=target, layer=layer)(image)


class Explainer:
    """A classifier, a method, and what is asked: checked once, then used for any number of photos."""

    def __init__(
        self, classifier: Classifier, *, method: str = "gradcam", target: str | None = None, layer: str | None = None
    ) -> None:
        if method not in METHODS:
            raise UsageError(
                f"there is no method '{method}', it must be one of {', '.join(METHODS)}{nearest(method, METHODS)}"
            )
        if layer is not None and method != "gradcam":
            raise UsageError(f"layer is '{layer}', but {method} looks at no layer; only gradcam does")
        check_captum()
        self.classifier, self.method, self.layer = classifier, method, layer
        self.network = _network_of(classifier)
        self.stages = [name for name, _ in self.network.body.named_children()]
        if layer is not None and layer not in self.stages:
            raise UsageError(
                f"the network has no stage '{layer}', it has {', '.join(self.stages)}{nearest(layer, self.stages)}"
            )
        try:
            self.target = None if target is None else ClassIndex(classifier.classes)[target]
        except DataError as error:
            raise UsageError(str(error)) from error

    def __call__(self, image: Source) -> Explanation:
        """Explain one photo; raise ImageError when it cannot be read."""
        preprocessing = self.classifier.preprocessing
        pixels = preprocessing.pixels(image, self.classifier.limits)
        scores = self.classifier.probabilities(pixels[None])[0]
        answer = int(scores.argmax())
        target = answer if self.target is None else self.target
        heat, layer, residual = self._map(preprocessing.normalized(pixels[None]), target)
        picture = decode_picture(
            image, exif=preprocessing.turns_upright, mode="RGB", short_side=SHOWN, limits=self.classifier.limits
        )
        photo = picture.image.copy()
        photo.thumbnail((SHOWN, SHOWN))
        return Explanation(
            path=os.fspath(image) if isinstance(image, str | os.PathLike) else None,
            label=self.classifier.classes[answer],
            probability=float(scores[answer]),
            target=self.classifier.classes[target],
            target_probability=float(scores[target]),
            method=self.method,
            layer=layer,
            preprocessing=str(preprocessing),
            map=heat,
            pixels=pixels,
            photo=photo,
            photo_size=(picture.width, picture.height),
            region=preprocessing.seen(picture.height, picture.width),
            residual=residual,
        )

    def each(self, images: Iterable[Source]) -> Iterator[Explanation | str]:
        """Every photo's explanation, or the reason why it cannot be read, in order."""
        for image in images:
            try:
                yield self(image)
            except ImageError as error:
                yield str(error)

    def _map(self, images: NDArray[np.float32], target: int) -> tuple[NDArray[np.float32], str | None, float | None]:
        """The map (H, W) of one normalised picture (1, C, H, W), the stage, and the residual."""
        import torch

        batch = torch.from_numpy(images).to(next(self.network.parameters()).device).requires_grad_()
        with _evaluating(self.network), torch.enable_grad():
            if self.method == "gradcam":
                heat, layer = self._gradcam(batch, target)
                return heat, layer, None
            if self.method == "occlusion":
                return self._occlusion(batch, target), None, None
            heat, residual = self._integrated_gradients(batch, target)
            return heat, None, residual

    def _gradcam(self, batch: "Tensor", target: int) -> tuple[NDArray[np.float32], str]:
        from captum.attr import LayerAttribution, LayerGradCam

        for name in [self.layer] if self.layer else reversed(self.stages):
            stage = self.network.body.get_submodule(name)
            coarse = LayerGradCam(self.network, stage).attribute(batch, target=target, relu_attributions=True)
            if max(coarse.shape[2:]) > 1:  # a single value says nothing of places
                fine = LayerAttribution.interpolate(coarse, tuple(batch.shape[2:]), "bilinear")
                return _plain(fine[0, 0]), name
        raise UsageError(f"the stage {self.layer or self.stages[0]} is one value a map, it shows no places")

    def _occlusion(self, batch: "Tensor", target: int) -> NDArray[np.float32]:
        from captum.attr import Occlusion

        channels, height, width = batch.shape[1:]
        side = max(1, math.ceil(min(height, width) / PATCH))
        step = max(1, side // 2)
        temperature = self.classifier.info.temperature
        falls = Occlusion(lambda x: (self.network(x) / temperature).softmax(1)).attribute(
            batch.detach(),
            sliding_window_shapes=(channels, side, side),
            strides=(channels, step, step),
            target=target,
            baselines=0.0,  # the mean of the normalisation
            perturbations_per_eval=AT_ONCE,
        )
        return _plain(falls[0, 0])  # the patch covers all channels, each got the same value

    def _integrated_gradients(self, batch: "Tensor", target: int) -> tuple[NDArray[np.float32], float]:
        import torch
        from captum.attr import IntegratedGradients

        with torch.no_grad():
            ends = self.network(torch.cat([batch, torch.zeros_like(batch)]))[:, target]
        for steps in STEPS:
            shares, delta = IntegratedGradients(self.network).attribute(
                batch,
                baselines=0.0,
                target=target,
                n_steps=steps,
                internal_batch_size=AT_ONCE,
                return_convergence_delta=True,
            )
            if abs(float(delta)) <= TOLERANCE * abs(float(ends[0] - ends[1])):
                break
        return _plain(shares[0].sum(dim=0)), float(delta)


def check_captum() -> None:
    """Refuse with a sentence where captum is not installed."""
    try:
        import captum.attr  # noqa: F401
    except ImportError as error:
        raise UsageError("explanations need captum: pip install captum") from error


def open_network(model: str | os.PathLike[str]) -> Classifier:
    """A model as torch runs it; UsageError for an export, whose network is gone."""
    if is_artefact(model):
        raise UsageError(f"explanations need the network itself: open the bundle that {model} is an export of")
    return load(model, "torch")


def _network_of(classifier: Classifier) -> "Network":
    from taxonet.networks.layers import Network

    network = getattr(classifier.engine, "network", None)
    if not isinstance(network, Network):
        raise UsageError(f"explanations need a network that torch runs, not the engine {classifier.engine.name}")
    return network


@contextmanager
def _evaluating(network: "Network") -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


def _plain(values: "Tensor") -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", values.detach().float().cpu().numpy())
