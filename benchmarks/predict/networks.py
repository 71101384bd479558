"""The networks of the benchmarks of prediction: one set of weights, as a bundle and in the form that each peer takes.

Weights are real where they are installed (EfficientNet-Lite0) or given (`--weights NETWORK=FILE`, as for `taxonet train
--weights`). Elsewhere they are fresh and scaled, which makes no difference to speed: batch norm takes its statistics
from 32 of the photos, so that activations keep their size, and the classifier answers which of these 32 a photo is most
like, so that labels differ and do not hang on the last bit. Where pixels themselves differ a little (a scaled decode of
12 megapixels) only real weights show how many labels do.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from taxonet.errors import DataError

TIMM = {  # our name: timm's name of the same network
    "mobilenet_v2": "mobilenetv2_100",
    "densenet121": "densenet121",
    "resnet50": "resnet50",
    "efficientnet_lite0": "tf_efficientnet_lite0",
}
INSTALLED = ("efficientnet_lite0",)
CALIBRATION = 32
TOLERANCE = 1e-3  # of the logits' standard deviation, between our network and timm's


@dataclass(frozen=True)
class Files:
    """Where a network's forms are."""

    folder: str
    network: str
    weights: str  # "real" or "fresh, scaled"
    normalisation: str  # "imagenet" or "half"

    @property
    def bundle(self) -> str:
        return f"{self.folder}/model.safetensors"

    @property
    def onnx(self) -> str:
        return f"{self.folder}/timm/model.onnx"

    @property
    def openvino(self) -> str:
        """Taxonet's export."""
        return f"{self.folder}/export.xml"

    @property
    def int8(self) -> str:
        return f"{self.folder}/int8.xml"

    @property
    def timm(self) -> str:
        """A folder in the form of timm's repositories on the hub: config.json and model.safetensors."""
        return f"{self.folder}/timm"

    @property
    def stats(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        from taxonet.images.preprocessing import NORMALIZATIONS

        return NORMALIZATIONS[self.normalisation]


def prepare(
    network: str, folder: Path, photos: list[Path], weights: str | None, peers: bool, int8: bool = False
) -> Files:
    """Write the bundle and, for the peers, timm's weights and the ONNX file; what is there already is kept.

    `int8` also quantises the bundle, on the photos.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "prepared.json"
    if note.is_file():
        files = Files(**json.loads(note.read_text()))
    else:
        files = write_bundle(network, folder, photos, weights)
        note.write_text(json.dumps(asdict(files)))
    if peers and not Path(files.onnx).is_file():
        write_peers(files, photos)
    if int8 and not Path(files.int8).is_file():
        write_int8(files, photos)
    return files


def write_int8(files: Files, photos: list[Path]) -> None:
    """Quantise by Taxonet's own export. Photos have no labels here, so each gets the label of the float32 bundle:
    what quantising costs is then how often its label is another, which the table of the benchmark shows. That is more
    than a trained classifier loses: of 1,000 classes few fit these photos, and many answers are near ties."""
    import taxonet

    folder = Path(files.folder, "labelled")
    for answer in taxonet.load(files.bundle, engine="openvino").predict_each(photos, top=1):
        home = folder / str(answer.label)
        if "/" not in str(answer.label):
            home.mkdir(parents=True, exist_ok=True)
            link = home / Path(str(answer.path)).name
            link.unlink(missing_ok=True)
            link.symlink_to(Path(str(answer.path)).absolute())
    taxonet.export(files.bundle, to="openvino", out=files.int8, data=folder, int8=True, max_drop=100.0)


def preprocessing(normalisation: str) -> str:
    return f"exif | rgb | resize(256, bicubic) | center_crop(224) | normalize({normalisation})"


def write_bundle(network: str, folder: Path, photos: list[Path], weights: str | None) -> Files:
    import torch

    from taxonet.assets import imagenet_classes
    from taxonet.networks import create_model
    from taxonet.weights.bundle import BundleInfo, save_bundle
    from taxonet.weights.creation import create_model as create_pretrained

    torch.manual_seed(0)
    real = weights or ("default" if network in INSTALLED else None)
    normalisation = "half" if "lite" in network else "imagenet"
    if real:
        model = create_pretrained(network, weights=real)
    else:
        model = create_model(network)
        scale(model, pixels(photos[:CALIBRATION], normalisation))
    files = Files(str(folder), network, "real" if real else "fresh, scaled", normalisation)
    options = {key: value for key, value in model.options.items() if key != "num_classes"}
    info = BundleInfo(network, imagenet_classes(), preprocessing(normalisation), options)
    save_bundle(files.bundle, info, model.state_dict())
    return files


def pixels(photos: list[Path], normalisation: str):
    """A batch (N, 3, 224, 224) as the networks take it."""
    import torch

    from taxonet.images import Preprocessing

    steps = Preprocessing.parse(preprocessing(normalisation))
    return torch.from_numpy(np.stack([steps(path) for path in photos]))


def scale(model, batch) -> None:
    """Statistics of batch norm from a batch, and a classifier whose class k is the likeness to picture k of it."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    seen = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model.train()(batch)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()(batch)
        mean = seen[-1].mean(0)
        apart = seen[-1] - mean
        rows = 10 * apart / apart.square().sum(1, keepdim=True)
        model.classifier.weight.zero_()[: len(rows)] = rows
        model.classifier.bias.fill_(-100)[: len(rows)] = -rows @ mean


def write_peers(files: Files, photos: list[Path]) -> None:
    """timm's form of the weights and its ONNX file, after a check that timm's network answers as ours does."""
    import torch
    from peers import without_compiled_torchvision
    from safetensors.torch import save_file

    without_compiled_torchvision()
    import timm

    from taxonet.weights.networks import open_model

    _, ours = open_model(files.bundle)
    theirs = timm.create_model(TIMM[files.network]).eval()
    theirs.load_state_dict(timm_names(files.network, ours), strict=True)
    batch = pixels(photos[:4], files.normalisation)
    with torch.inference_mode():
        expected, found = ours.eval()(batch), theirs(batch)
    apart = ((expected - found).abs().max() / expected.std()).item()
    if apart > TOLERANCE:
        raise DataError(f"timm's {TIMM[files.network]} does not answer as {files.network} does (apart by {apart:.2g})")
    Path(files.timm).mkdir(exist_ok=True)
    save_file(
        {key: value.contiguous() for key, value in theirs.state_dict().items()}, f"{files.timm}/model.safetensors"
    )
    Path(files.timm, "config.json").write_text(json.dumps(timm_config(files)))
    unfinished = f"{files.timm}/unfinished.onnx"
    shapes = ({0: torch.export.Dim("n", min=1, max=1024)},)
    torch.onnx.export(theirs, (batch,), unfinished, dynamo=True, dynamic_shapes=shapes, external_data=False)
    Path(unfinished).replace(files.onnx)


def timm_names(network: str, ours) -> dict:
    """Our network's state under timm's names."""
    from taxonet.networks.registry import find
    from taxonet.weights.conversion import own_modules
    from taxonet.weights.layouts import layouts_of

    layouts = layouts_of(find(network).family)
    naming = layouts.get("timm") or layouts["torchvision"]  # timm keeps torchvision's names of DenseNet
    names = dict(zip(own_modules(ours), naming(ours), strict=True))
    parts = {key: key.rpartition(".") for key in ours.state_dict()}
    return {f"{names[parts[key][0]]}.{parts[key][2]}": value for key, value in ours.state_dict().items()}


def timm_config(files: Files) -> dict:
    mean, std = files.stats
    own = {"input_size": [3, 224, 224], "interpolation": "bicubic", "crop_pct": 0.875, "mean": mean, "std": std}
    labels = [str(index) for index in range(1000)]  # so that a label says the index
    name = TIMM[files.network]
    return {
        "model_type": "timm_wrapper",
        "architectures": ["TimmWrapperForImageClassification"],
        "architecture": name,
        "num_classes": len(labels),
        "label_names": labels,
        "pretrained_cfg": {"architecture": name, "num_classes": len(labels), **own},
    }
