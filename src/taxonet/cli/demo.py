"""`taxonet demo`: the embedded first run."""

import shutil
import time
from pathlib import Path
from typing import Any

from taxonet.cli.numbers import MaybeWhole
from taxonet.cli.output import print_table
from taxonet.errors import UsageError

MODEL = "densenet_bc_22_12"
# A short run: Adam and an average of the weights get a small network far in few steps.
RECIPE: dict[str, Any] = {
    "epochs": 18,
    "image_size": 28,
    "batch_size": 32,
    "val_fraction": 0.1,
    "optimizer": "adamw",
    "lr": 4e-3,
    "weight_decay": 0.02,
    "warmup_epochs": 1.0,
    "ema_decay": 0.98,
    "augmentation": "resize(28) | random_crop(28, padding=1) | flip",
}


def demo(*, out: Path = Path("taxonet-demo"), epochs: MaybeWhole = None) -> int:
    """Classify two photos with real weights, then train, evaluate and use a small DenseNet-BC; needs no network.

    Parameters
    ----------
    out
        The folder that gets the pictures and the run; the run of an earlier demo in it is replaced.
    epochs
        How often every training picture is seen; 18 where nothing is said.
    """
    from taxonet.assets import photo_paths, write_fashion_mnist
    from taxonet.evaluation import evaluate
    from taxonet.inference import load, predict
    from taxonet.training import train

    started = time.monotonic()
    run = out / "run"
    _clear(run)
    print("1. two photos, EfficientNet-Lite0 with its ImageNet weights\n")
    answers = predict(photo_paths(), model="efficientnet_lite0", top=3)
    for answer in answers:
        names = ", ".join(f"{p.label} {p.probability:.2f}" for p in answer.predictions)
        print(f"   {Path(str(answer.path)).name:<12} {names}")

    data = write_fashion_mnist(out / "fashion-mnist")
    print(f"\n2. a {MODEL} trained from scratch on 2,000 pictures of clothes ({data})\n", flush=True)
    recipe = RECIPE | ({"epochs": epochs} if epochs is not None else {})
    result = train(data, model=MODEL, out=run, progress=True, **recipe)
    if result.interrupted:
        return 130

    print("\n3. the bundle, evaluated and used\n")
    classifier = load(result.bundle)
    evaluation = evaluate(classifier, data, split="test")
    low, high = evaluation.metrics.top1_ci
    pictures = [next((data / "test" / label).glob("*.png")) for label in classifier.classes[:5]]
    for path, answer in zip(pictures, classifier.predict(pictures, top=2), strict=True):
        names = ", ".join(f"{p.label} {p.probability:.2f}" for p in answer.predictions)
        print(f"   {path.parent.name:<12} {names}")
    print()
    rows = [
        ("test accuracy", f"{evaluation.metrics.top1:.3f}  (95 % interval {low:.3f} to {high:.3f})"),
        ("test pictures", str(evaluation.metrics.n)),
        ("bundle", f"{result.bundle}  ({result.bundle.stat().st_size / 1e6:.2f} MB)"),
        ("report", str(result.report)),
        ("time", f"{time.monotonic() - started:.0f} s"),
    ]
    print_table(("what", "result"), rows)
    print("\nnext: taxonet train YOUR_PHOTOS --out runs/first   (a folder with one folder a class)")
    return 0


def _clear(run: Path) -> None:
    """Remove the run of an earlier demo, and nothing else."""
    if run.exists():
        if not (run / "recipe.toml").is_file():
            raise UsageError(f"{run} is not the run of an earlier demo, choose another --out")
        shutil.rmtree(run)
