"""Taxonet in the benchmarks of prediction, and the limits of the machine: decoding alone and the network alone."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from contender import BATCH, Contender, Labels, batches, cores, settings

from networks import Files


class Ours(Contender):
    ENGINE = "openvino"

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        import taxonet

        self.classifier = taxonet.load(self.model(), engine=self.ENGINE)

    def model(self) -> str:
        return self.files.bundle

    def run(self, photos: list[Path]) -> Labels:
        answers = self.classifier.predict_each(photos, top=1)
        return [answer.predictions[0].index if answer.predictions else -1 for answer in answers]

    def one(self, photo: Path) -> int:
        return self.classifier.predict(photo)[0].predictions[0].index


class OursOpenVino(Ours):
    NAME, NEEDS = "taxonet", ("openvino",)


class OursTorch(Ours):
    NAME, ENGINE = "taxonet torch", "torch"


class OursOnnxRuntime(Ours):
    NAME, NEEDS, ENGINE = "taxonet onnx", ("onnxruntime",), "onnxruntime"


class OursInt8(Ours):
    NAME, NEEDS, ENGINE = "taxonet int8", ("openvino",), "auto"

    def model(self) -> str:
        if not Path(self.files.int8).is_file():
            raise FileNotFoundError(f"there is no {self.files.int8}; `--int8` makes it")
        return self.files.int8


class DecodeOnly(Ours):
    """Our reading, decoding and resizing on every core, nothing else."""

    NAME, NEEDS = "decode only", ()

    def __init__(self, files: Files, photos: list[Path]) -> None:
        Contender.__init__(self, files, photos)
        from taxonet.images import Preprocessing
        from taxonet.weights.bundle import read_info

        self.steps = Preprocessing.parse(read_info(files.bundle).preprocessing)

    def read(self, photos: list[Path]) -> None:
        for path in photos:
            self.steps.pixels(path)

    def run(self, photos: list[Path]) -> Labels:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(self.read, [photos[core :: cores()] for core in range(cores())]))
        return []


class NetworkOnly(Ours):
    """Our engine on every stream at once, on pixels that are ready."""

    NAME, NEEDS = "network only", ("openvino",)
    SETTINGS = settings(batch=(1, 8, 16))

    def __init__(self, files: Files, photos: list[Path]) -> None:
        super().__init__(files, photos)
        self.pixels = np.stack([self.classifier.preprocessing.pixels(path) for path in photos[:BATCH]])

    def run(self, photos: list[Path], batch: int) -> Labels:
        engine = self.classifier.engine
        with ThreadPoolExecutor(engine.streams) as pool:
            sizes = [len(part) for part in batches(photos, batch)]
            list(pool.map(lambda size: engine.run(self.pixels[:size]), sizes))
        return []


class OnlyNetworkInt8(NetworkOnly):
    NAME, ENGINE = "network only int8", "auto"
    model = OursInt8.model


OURS = (OursOpenVino, OursInt8, OursOnnxRuntime, OursTorch)
LIMITS = (DecodeOnly, NetworkOnly, OnlyNetworkInt8)
