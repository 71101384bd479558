"""Cold start to the first label: `taxonet predict PHOTO -m EXPORT` against a script with timm, each in a fresh process.

    PYTHONPATH=PEERS python benchmarks/predict/cold.py [--networks efficientnet_lite0 …] [--runs 7] [--json FILE]

The seconds from starting the interpreter until the label stands on standard output, and until the process has ended,
in turn; medians. Files, modules and their bytecode come from the system's cache. `--imports` prints what Taxonet's time
goes into (`python -X importtime`). Packages and weights as for throughput.py.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import script
from photos import make_photos
from race import Alone

from networks import TIMM, Files, prepare

SECONDS = 0.7
LINE = "{:<22} {:>12}  {:>16}  {:>8}  {:>6}"

TIMM_SCRIPT = """
import sys, types
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")
import timm, torch
from PIL import Image
name, checkpoint, mean, std, photo = sys.argv[1:]
network = timm.create_model(name, checkpoint_path=checkpoint).eval()
mean, std = ([float(value) for value in values.split(",")] for values in (mean, std))
transform = timm.data.create_transform(224, interpolation="bicubic", crop_pct=0.875, mean=mean, std=std)
with torch.inference_mode():
    print(int(network(transform(Image.open(photo).convert("RGB"))[None]).argmax()), flush=True)
"""


def export(files: Files) -> None:
    """The exported form of the bundle, where it is not there already."""
    import taxonet

    if not Path(files.openvino).is_file():
        taxonet.export(files.bundle, to="openvino", out=files.openvino)


def commands(files: Files, photo: Path) -> dict[str, list[str]]:
    """What is timed; each prints the index of the label, ours within its JSON."""
    ours = [sys.executable, "-m", "taxonet", "predict", str(photo), "--json", "-m"]
    mean, std = (",".join(map(str, values)) for values in files.stats)
    checkpoint = f"{files.timm}/model.safetensors"
    return {
        "taxonet, export": [*ours, files.openvino],
        "taxonet, bundle": [*ours, files.bundle],
        "timm": [sys.executable, "-c", TIMM_SCRIPT, TIMM[files.network], checkpoint, mean, std, str(photo)],
    }


def start(command: list[str]) -> tuple[float, float, int]:
    """Seconds to the first line of output, seconds to the end, index of the label."""
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        head = process.stdout.readline()
        first = time.perf_counter() - begin
        text = head + process.stdout.read()
        problem = process.stderr.read()
    if process.returncode:
        raise RuntimeError((problem.strip().splitlines() or [f"exit status {process.returncode}"])[-1])
    found = json.loads(text)
    return first, time.perf_counter() - begin, found if isinstance(found, int) else found[0]["predictions"][0]["index"]


def measure(options: argparse.Namespace, network: str, folder: Path) -> dict[str, Any]:
    photos = make_photos(folder / "photos-500", "500", 40, options.data)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        files: Files = pool.submit(prepare, network, folder / network, photos, None, True).result()
        rows: dict[str, dict[str, Any]] = {name: {"first": [], "end": []} for name in commands(files, photos[0])}
        try:
            pool.submit(export, files).result()
        except Exception as error:
            rows["taxonet, export"]["missing"] = f"{type(error).__name__}: {error}"
    with Alone(options.under) as turn:
        for run in range(options.runs + 1):
            for name, command in commands(files, photos[0]).items():
                if "missing" not in rows[name]:
                    once(rows[name], command, counts=run > 0)
            turn.between()
    return {"network": network, "runs": options.runs, "contenders": rows, "imports": imports(options, files, photos[0])}


def once(row: dict[str, Any], command: list[str], counts: bool) -> None:
    try:
        first, end, row["label"] = start(command)
    except RuntimeError as error:
        row["missing"] = str(error)
        return
    if counts:  # the first run fills the caches
        row["first"].append(first)
        row["end"].append(end)


def imports(options: argparse.Namespace, files: Files, photo: Path) -> list[str]:
    """The modules whose import takes longest, with what they import, of Taxonet's start."""
    if not options.imports:
        return []
    _, *arguments = commands(files, photo)["taxonet, export"]
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    report = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    lines = [line.split("|") for line in report.stderr.splitlines() if line.startswith("import time:")][1:]
    slowest = sorted(lines, key=lambda parts: -int(parts[1]))[:25]
    return [f"{int(parts[1]) / 1000:8.0f} ms {parts[2].rstrip()}" for parts in slowest]


def show(row: dict[str, Any]) -> None:
    rows = row["contenders"]
    print(f"\n{row['network']}, {row['runs']} cold starts each")
    print(LINE.format("", "to label, s", "low to high", "to end, s", "label"))
    for name, one in rows.items():
        if "missing" in one:
            print(f"{name:<22} not measured: {one['missing']}")
            continue
        first, spread = statistics.median(one["first"]), f"{min(one['first']):.2f} to {max(one['first']):.2f}"
        print(LINE.format(name, f"{first:.2f}", spread, f"{statistics.median(one['end']):.2f}", one["label"]))
    for line in row["imports"]:
        print(line)
    if "missing" not in rows["taxonet, export"]:
        reached = statistics.median(rows["taxonet, export"]["first"])
        verdict = "reached" if reached <= SECONDS else "missed"
        print(f"target taxonet, export: at most {SECONDS} s, {reached:.2f}, {verdict}")
    sys.stdout.flush()


def arguments() -> argparse.Namespace:
    made = script.parser(__doc__)
    made.add_argument("--runs", type=int, default=7)
    made.add_argument("--imports", action="store_true", help="print which imports Taxonet's start goes into")
    return script.parsed(made, ["timm"])


def main() -> None:
    options = arguments()
    script.run(options, [(network,) for network in options.networks], measure, show)


if __name__ == "__main__":
    main()
