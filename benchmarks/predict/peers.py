"""The contenders of the benchmarks of prediction: what a user would pick instead of Taxonet, each at its best.

Each class loads a network in its constructor and answers `run(photos, **setting)` with the index of the likeliest class
of every photo, in order. `SETTINGS` are tried on a few photos before anything counts, and the fastest is measured.
All peers but `transformers`' own reading use Pillow with a full decode, as their documentation does, and resize to 256
(bicubic) and crop 224; none of them computes in less than float32.

timm          the loop of its `inference.py`: create_loader with its prefetcher, eager, channels-last; 0 or 2 workers
transformers  `pipeline("image-classification")` on the same network (TimmWrapper), with batches; 0 or 2 workers
torch.compile  DataLoader with torchvision's transforms, `torch.compile` with freezing (compiling is not timed),
              channels-last, batches of 16 of a fixed shape; 0 or 2 workers
onnxruntime   the ONNX file of timm's network; photos decoded in the loop or by a pool of threads, one batch in the
              session while the next is decoded; or as many threads as cores, each of which decodes and runs
openvino      the same file, THROUGHPUT hint, AsyncInferQueue, scale and layout in the graph (PrePostProcessor);
              photos decoded in the loop or by a pool of threads
"""

import functools
import importlib.util
import itertools
import os
import sys
import types
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from contender import BATCH, Contender, Labels, batches, cores, settings
from ours import LIMITS, OURS, OursInt8, OursOpenVino
from PIL import Image

from networks import TIMM, Files

TORCHVISION = ("timm", "torchvision")
EXPORTED = (*TORCHVISION, "onnx", "onnxscript")  # the ONNX file is made from timm's network
PIP = (
    "`pip install 'taxonet[onnx]'` and `pip install --no-deps --target PEERS timm==1.0.31 'torchvision==0.28.*' "
    "transformers==5.24.0 tokenizers regex`, then PYTHONPATH=PEERS,"
)


def without_compiled_torchvision() -> None:
    """Let torchvision's transforms be imported where its compiled operators, which they do not use, do not load."""
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


# --- peers on torch ----------------------------------------------------------------------------------------


def timm_network(files: Files) -> Any:
    import torch

    without_compiled_torchvision()
    import timm

    torch.set_num_threads(cores())
    checkpoint = f"{files.timm}/model.safetensors"
    network = timm.create_model(TIMM[files.network], checkpoint_path=checkpoint).eval()
    return network.to(memory_format=torch.channels_last)


class Timm(Contender):
    NAME, NEEDS = "timm", TORCHVISION
    SETTINGS = settings(workers=(0, 2), batch=(8, 32))

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        self.network = timm_network(files)
        self.loaders: dict[tuple[int, int, int], Any] = {}

    def loader(self, photos: list[Path], workers: int, batch: int) -> Any:
        """timm's loader over the first photos of the folder; it keeps its workers from run to run."""
        import torch
        from timm.data import create_dataset, create_loader

        key = (len(photos), workers, batch)
        if key not in self.loaders:
            dataset = create_dataset("", root=str(photos[0].parent), search_split=False)
            dataset.reader.samples = dataset.reader.samples[: len(photos)]
            assert dataset.filenames(basename=True) == [path.name for path in photos]
            mean, std = self.files.stats
            self.loaders[key] = create_loader(
                dataset,
                input_size=(3, 224, 224),
                batch_size=batch,
                interpolation="bicubic",
                mean=mean,
                std=std,
                crop_pct=0.875,
                num_workers=workers,
                device=torch.device("cpu"),
                persistent_workers=workers > 0,
            )
        return self.loaders[key]

    def run(self, photos: list[Path], workers: int, batch: int) -> Labels:
        import torch

        labels: list[int] = []
        with torch.inference_mode():
            for images, _ in self.loader(photos, workers, batch):
                output = self.network(images.contiguous(memory_format=torch.channels_last))
                labels += output.softmax(-1).topk(1)[1][:, 0].tolist()
        return labels

    @functools.cached_property
    def transform(self) -> Any:
        from timm.data import create_transform

        mean, std = self.files.stats
        return create_transform((3, 224, 224), interpolation="bicubic", crop_pct=0.875, mean=mean, std=std)

    def one(self, photo: Path) -> int:
        import torch

        with torch.inference_mode(), Image.open(photo) as image:
            batch = self.transform(image.convert("RGB"))[None]
            return int(self.network(batch.contiguous(memory_format=torch.channels_last)).argmax())


class Transformers(Contender):
    NAME, NEEDS = "transformers", ("transformers", "tokenizers", "regex", *TORCHVISION)
    SETTINGS = settings(workers=(0, 2), batch=(1, 16))

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        import torch

        without_compiled_torchvision()
        os.environ["HF_HUB_OFFLINE"] = "1"
        from transformers import pipeline
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        torch.set_num_threads(cores())
        self.pipeline = pipeline("image-classification", model=files.timm, device="cpu")

    def run(self, photos: list[Path], workers: int, batch: int) -> Labels:
        paths = [str(path) for path in photos]
        found = self.pipeline(paths, batch_size=batch, num_workers=workers, top_k=1)
        return [int(answer[0]["label"]) for answer in found]


class Compiled(Contender):
    NAME, NEEDS = "torch.compile", TORCHVISION
    SETTINGS = settings(workers=(0, 2))

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        import torch
        import torch._inductor.config as inductor

        inductor.freezing = True
        self.network = torch.compile(timm_network(files))
        from torchvision import transforms

        bicubic = transforms.InterpolationMode.BICUBIC
        steps = [transforms.Resize(256, bicubic), transforms.CenterCrop(224), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(*files.stats)])
        self.loaders: dict[tuple[int, int], Any] = {}
        self.run(photos[:BATCH], 0)  # compiles

    def loader(self, photos: list[Path], workers: int) -> Any:
        from torch.utils.data import DataLoader

        key = (len(photos), workers)
        if key not in self.loaders:
            read = Read(photos, self.transform)
            self.loaders[key] = DataLoader(read, BATCH, num_workers=workers, persistent_workers=workers > 0)
        return self.loaders[key]

    def run(self, photos: list[Path], workers: int) -> Labels:
        import torch

        labels: list[int] = []
        with torch.inference_mode():
            for images in self.loader(photos, workers):
                missing = BATCH - len(images)  # another shape would be compiled again
                whole = torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images
                output = self.network(whole.contiguous(memory_format=torch.channels_last))
                labels += output[: len(images)].argmax(1).tolist()
        return labels


class Read:
    """A data set of torch: photos through a transform."""

    def __init__(self, photos: list[Path], transform: Any) -> None:
        self.photos, self.transform = photos, transform

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: int) -> Any:
        with Image.open(self.photos[place]) as image:
            return self.transform(image.convert("RGB"))


# --- peers on an ONNX file ---------------------------------------------------------------------------------


def pillow_pixels(path: Path) -> np.ndarray:
    """Resize 256, crop 224 with Pillow: (224, 224, 3) uint8."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = 256 / min(image.size)
    width, height = (256 if side == min(image.size) else int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, upper = round((width - 224) / 2), round((height - 224) / 2)
    return np.asarray(image.crop((left, upper, left + 224, upper + 224)))


class OnnxRuntime(Contender):
    NAME, NEEDS = "onnxruntime", ("onnxruntime", *EXPORTED)
    SETTINGS = (
        settings(form=("loop", "pool"), threads=(cores(),), batch=(1, BATCH))
        + settings(form=("pool",), threads=(1,), batch=(BATCH,))
        + settings(form=("workers",), threads=(1,), batch=(1, 8))
    )

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        self.sessions = {threads: self.session(threads) for threads in {1, cores()}}
        mean, std = (np.array(value, np.float32) for value in files.stats)
        self.scale, self.shift = 1 / (255 * std), mean / std

    def session(self, threads: int) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        return onnxruntime.InferenceSession(self.files.onnx, options, providers=["CPUExecutionProvider"])

    def read(self, path: Path) -> np.ndarray:
        """(3, 224, 224) float32."""
        return (pillow_pixels(path) * self.scale - self.shift).transpose(2, 0, 1)

    def answer(self, threads: int, images: list[np.ndarray]) -> list[int]:
        session = self.sessions[threads]
        (logits,) = session.run(None, {session.get_inputs()[0].name: np.stack(images)})
        return logits.argmax(1).tolist()

    def run(self, photos: list[Path], form: str, threads: int, batch: int) -> Labels:
        parts = list(batches(photos, batch))
        if form == "loop":
            return [label for part in parts for label in self.answer(threads, [self.read(path) for path in part])]
        with ThreadPoolExecutor(cores()) as pool:
            if form == "workers":
                found = pool.map(lambda part: self.answer(threads, [self.read(path) for path in part]), parts)
                return [label for labels in found for label in labels]
            images = pool.map(self.read, photos)
            return [
                label for part in parts for label in self.answer(threads, list(itertools.islice(images, len(part))))
            ]

    def one(self, photo: Path) -> int:
        return self.answer(cores(), [self.read(photo)])[0]


class OpenVino(Contender):
    NAME, NEEDS = "openvino", ("openvino", *EXPORTED)
    SETTINGS = settings(form=("loop", "pool"), batch=(1, 8))

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        self.compiled = {batch: compiled_openvino(files, batch, "THROUGHPUT") for batch in (1, 8)}

    def run(self, photos: list[Path], form: str, batch: int) -> Labels:
        from openvino import AsyncInferQueue

        labels = np.full(len(photos), -1)

        def keep(request: Any, place: slice) -> None:
            labels[place] = request.get_output_tensor().data[: place.stop - place.start].argmax(1)

        queue = AsyncInferQueue(self.compiled[batch])
        queue.set_callback(keep)
        with ThreadPoolExecutor(cores()) as pool:
            images = pool.map(pillow_pixels, photos) if form == "pool" else map(pillow_pixels, photos)
            for start in range(0, len(photos), batch):
                part = np.zeros((batch, 224, 224, 3), np.uint8)
                stop = min(start + batch, len(photos))
                for row in range(stop - start):
                    part[row] = next(images)
                queue.start_async(part, slice(start, stop))
            queue.wait_all()
        return labels.tolist()


class OpenVinoLatency(Contender):
    """The LATENCY hint: one stream on all cores."""

    NAME, NEEDS = "openvino latency", ("openvino", *EXPORTED)

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        self.request = compiled_openvino(files, 1, "LATENCY").create_infer_request()

    def one(self, photo: Path) -> int:
        (logits,) = self.request.infer([pillow_pixels(photo)[None]], share_inputs=True).values()
        return int(logits.argmax())


def compiled_openvino(files: Files, batch: int, hint: str) -> Any:
    """The ONNX file for (batch, 224, 224, 3) uint8 pixels, scale and layout in the graph, float32."""
    from taxonet.inference.engines.libraries import import_openvino

    openvino = import_openvino()  # which sends nothing
    from openvino.preprocess import PrePostProcessor

    core = openvino.Core()
    model = core.read_model(files.onnx)
    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    mean, std = ([255 * value for value in values] for values in files.stats)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    model = steps.build()
    model.reshape([batch, 224, 224, 3])
    return core.compile_model(model, "CPU", {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"})


PEERS = (Timm, Transformers, Compiled, OnnxRuntime, OpenVino)
CONTENDERS = {contender.NAME: contender for contender in (*OURS, *PEERS, OpenVinoLatency, *LIMITS)}
THROUGHPUT = [contender.NAME for contender in (*OURS, *PEERS, *LIMITS)]
LATENCY = [contender.NAME for contender in (OursOpenVino, OursInt8, OpenVinoLatency, OnnxRuntime, Timm)]


def missing_packages(names: Sequence[str]) -> str | None:
    """A sentence about what has to be installed for these contenders, or None."""
    needs = {
        name: [need for need in CONTENDERS[name].NEEDS if importlib.util.find_spec(need) is None] for name in names
    }
    missing = list(dict.fromkeys(need for needed in needs.values() for need in needed))
    if not missing:
        return None
    without = ", ".join(name for name in names if needs[name])
    return f"{', '.join(missing)} cannot be imported, which {without} needs: {PIP} or leave it out with --only"
