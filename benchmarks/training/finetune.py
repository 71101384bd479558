"""Fine-tuning EfficientNet-Lite0 on a folder of photos: Taxonet's default against timm and a torchvision-style loop.

    pip install --no-deps --target PEERS timm==1.0.31 'torchvision==0.28.*'
    PYTHONPATH=PEERS python benchmarks/training/finetune.py --data PHOTOS [--seeds 0 1 2] [--work FOLDER]

All start from the same ImageNet weights and see the same training and validation photos (Taxonet's stratified split of
each seed) for the same epochs, on the same cores, one after the other within each seed, each in a process of its own.
Accuracy is top-1 of the last epoch on the validation photos; time is from the first photo read to the last weight,
validation after every epoch included.

timm: its own transforms (random resized crop, flip, colour jitter 0.4; evaluation: resize 256, crop 224), AdamW at 5e-4
with a cosine schedule and one epoch of warm-up, weight decay 0.05, label smoothing 0.1, batch 32, 2 loading workers.
torchvision: random resized crop and flip, SGD 0.01 with momentum 0.9, weight decay 1e-4, the rate a tenth after two
thirds of the epochs, batch 32, 2 loading workers.
"""

import argparse
import csv
import json
import shutil
import statistics
import sys
import tempfile
import time
import tomllib
import types
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import taxonet
from taxonet.networks import create_model
from taxonet.weights.catalogue import find_entry
from taxonet.weights.layouts import layouts_of

sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

MODEL, PEER = "efficientnet_lite0", "tf_efficientnet_lite0"
BATCH, WORKERS = 32, 2


class Photos(Dataset):
    """The rows of a split's table, through a peer's transform."""

    def __init__(self, table, classes, transform):
        with table.open(encoding="utf-8") as file:
            self.rows = [(row["path"], classes.index(row["label"])) for row in csv.DictReader(file)]
        self.folder, self.transform = table.parent, transform

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        path, label = self.rows[place]
        return self.transform(Image.open(self.folder / path).convert("RGB")), label


def peer_network(classes):
    """timm's network with the weights that Taxonet starts from, under timm's names."""
    import timm

    ours = create_model(MODEL)
    layouts = layouts_of("efficientnet_lite")
    names = dict(zip(layouts["lukemelas"](ours), layouts["timm"](ours), strict=True))
    network = timm.create_model(PEER, num_classes=len(classes))
    own = network.state_dict()
    for key, value in find_entry(MODEL).state().items():
        module, _, leaf = key.rpartition(".")
        target = f"{names[module]}.{leaf}"
        if own[target].shape == value.shape:
            own[target].copy_(value)
    return network


def timm_parts(network, epochs):
    from timm.data import create_transform
    from timm.optim import create_optimizer_v2

    config = {"input_size": 224, "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    train = create_transform(**config, is_training=True, color_jitter=0.4)
    evaluation = create_transform(**config, crop_pct=0.875)
    optimizer = create_optimizer_v2(network, opt="adamw", lr=5e-4, weight_decay=0.05)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=1)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs - 1))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [1])
    return train, evaluation, optimizer, schedule, 0.1


def torchvision_parts(network, epochs):
    from torchvision import transforms

    scale = [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    train = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), *scale])
    evaluation = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), *scale])
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    return train, evaluation, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, max(1, 2 * epochs // 3)), 0.0


def fit_peer(parts, run, epochs, seed):
    """Top-1 on the validation photos and seconds of a plain loop on the split of Taxonet's run."""
    torch.manual_seed(seed)
    classes = json.loads((run / "run.json").read_text())["classes"]
    network = peer_network(classes).train()
    train, evaluation, optimizer, schedule, smoothing = parts(network, epochs)
    training = DataLoader(Photos(run / "train.csv", classes, train), BATCH, shuffle=True, num_workers=WORKERS)
    validation = DataLoader(Photos(run / "val.csv", classes, evaluation), BATCH, num_workers=WORKERS)
    start = time.perf_counter()
    for _ in range(epochs):
        network.train()
        for images, labels in training:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels, label_smoothing=smoothing).backward()
            optimizer.step()
        schedule.step()
        right = accuracy(network, validation)
    return right, time.perf_counter() - start


def accuracy(network: nn.Module, photos: DataLoader) -> float:
    network.eval()
    with torch.inference_mode():
        found = [(network(images).argmax(1) == labels) for images, labels in photos]
    return torch.cat(found).float().mean().item()


def fit_ours(data, run, seed):
    start = time.perf_counter()
    result = taxonet.train(data, model=MODEL, out=run, seed=seed, explain=False)
    return result.validation.metrics.top1, time.perf_counter() - start, result.recipe.epochs


def alone(function, *arguments):
    """The function's answer from a fresh process: what one library sets does not help or hurt the next."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


PEERS = {"timm": timm_parts, "torchvision": torchvision_parts}


def row_of(who, seed, data, work):
    """One training, measured; the peers take the split and the epochs of Taxonet's run of the same seed."""
    run = work / f"seed{seed}"
    if who == "taxonet":
        shutil.rmtree(run, ignore_errors=True)
        top1, seconds, epochs = alone(fit_ours, data, run, seed)
    else:
        epochs = tomllib.loads((run / "recipe.toml").read_text())["epochs"]
        top1, seconds = alone(fit_peer, PEERS[who], run, epochs, seed)
    row = {"seed": seed, "who": who, "top1": top1, "seconds": round(seconds, 1), "epochs": epochs}
    print("seed {seed}  {who:<12} top-1 {top1:.3f}  {seconds:.0f} s  {epochs} epochs".format(**row), flush=True)
    return row


def summarise(rows):
    means = {}
    for who in ("taxonet", *PEERS):
        mine = [row for row in rows if row["who"] == who]
        means[who] = [statistics.mean(row[key] for row in mine) for key in ("top1", "seconds")]
        share = means["taxonet"][1] / means[who][1]
        print(f"mean  {who:<12} top-1 {means[who][0]:.3f}  {means[who][1]:.0f} s  (taxonet takes {share:.2f} of it)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, help="keep runs and rows here, and go on from what is there")
    parser.add_argument("--rows", type=int, default=1000, help="end after so many trainings")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = arguments.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        table = work / "rows.json"
        rows = json.loads(table.read_text())["rows"] if table.exists() else []
        done = {(row["seed"], row["who"]) for row in rows}
        wanted = [(seed, who) for seed in arguments.seeds for who in ("taxonet", *PEERS)]
        for seed, who in [pair for pair in wanted if pair not in done][: arguments.rows]:
            rows.append(row_of(who, seed, arguments.data, work))
            table.write_text(
                json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}, indent=2)
            )
        if {(row["seed"], row["who"]) for row in rows} >= set(wanted):
            summarise(rows)


if __name__ == "__main__":
    main()
