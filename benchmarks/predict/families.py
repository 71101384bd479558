"""Every family through OpenVINO, in float32 and in int8, against the torch reference on photos: docs/engines_table.md.

    python benchmarks/predict/families.py PHOTOS [--only PATTERN] [--weights-dir DIR] [--work DIR]
    python benchmarks/predict/families.py PHOTOS --speed [--only PATTERN] [--weights-dir DIR] [--work DIR]

PHOTOS is a folder of class folders. The first call measures agreement and writes the graphs to --work, the second one
times them, alone on the machine; both write the table with what is known so far.

Where the weights come from is said in each row. *Real* ones are of the installed package efficientnet_lite0, or files
of --weights-dir: `mobilenet_v2*.pth`, `resnet20*.th`; their classifier is fitted, by regression on the network's own
features, to the classes of half of the photos. Other networks get weights that are a function of names and shapes
(tests/golden/weights.py), leaning to the identity, and their norms the statistics of the photos. What such a network
knows of the photos' classes is next to nothing, so that equal labels would be ties turned by chance: its classes are
six clusters of its own features. All figures are of the other half of the photos. Int8 is that of the plainest setting
unless --max-drop says otherwise: a drop on so few photos is no ground for a search.
"""

import argparse
import fnmatch
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import nn

from taxonet.console import Terminal
from taxonet.data import Sample, read_data, stratified_split
from taxonet.evaluation.speed import describe_machine
from taxonet.images import DEFAULT_LIMITS, Preprocessing
from taxonet.inference.conversion import to_openvino
from taxonet.inference.engines.libraries import import_openvino
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.inference.engines.torch_engine import TorchEngine
from taxonet.inference.int8.figures import logit_error
from taxonet.inference.int8.photos import balanced, read
from taxonet.inference.int8.quantise import described
from taxonet.inference.int8.search import SETTINGS, Search, answers
from taxonet.inference.int8.timing import measure_rates
from taxonet.networks import create_model
from taxonet.networks.registry import find
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.networks import find_pretrained

PER_CLASS = 30  # photos; half of them fit the classifiers and calibrate, the others measure
COMPONENTS = 8  # of the features, that a classifier is fitted to; the small ones are noise in a random network
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
NETWORKS = {  # what is particular
    "alexnet": "single tower",
    "alexnet_two_group": "groups, LRN",
    "vgg11": "",
    "googlenet": "LRN",
    "bn_inception": "",
    "se_bn_inception": "squeeze-and-excite",
    "resnet50": "",
    "resnet20_cifar": "CIFAR",
    "preresnet164_cifar": "CIFAR, pre-activation",
    "resnext50_32x4d": "groups",
    "seresnet50": "squeeze-and-excite",
    "densenet121": "pre-activation",
    "densenet_bc_100_12": "CIFAR, pre-activation",
    "dpn68": "pre-activation, groups",
    "attention56": "masks",
    "igc_l24m2_20": "CIFAR, interleaved groups",
    "igcv3_d": "interleaved groups",
    "shufflenet_v1_g3_x1_0": "groups, shuffle",
    "shufflenet_v2_x1_0": "split, shuffle",
    "mobilenet_v1": "depthwise",
    "mobilenet_v2": "depthwise, ReLU6",
    "mobilenet_v3_large": "h-swish, squeeze-and-excite",
    "mnasnet_a1": "squeeze-and-excite",
    "efficientnet_b0": "swish, squeeze-and-excite",
    "efficientnet_lite0": "ReLU6",
    "nfnet_f0": "no norm, GELU, squeeze-and-excite",
}
FILES = {"mobilenet_v2": "mobilenet_v2*.pth", "resnet20_cifar": "resnet20*.th"}
HERE = Path(__file__).parents[2]
sys.path.insert(0, str(HERE))  # of `tests`, which is not installed

from tests.golden.weights import weight  # noqa: E402


class Prepared:
    """A network that answers photos differently, and the photos in their two halves."""

    def __init__(self, name, photos, weights_dir, terminal):
        self.name, self.terminal = name, terminal
        data = read_data(photos)
        classes = data.classes
        some = [Sample(s.path, s.label) for s in balanced(data.samples, PER_CLASS * len(classes), 0)]
        self.fit, self.held = stratified_split(some, 0.5, 0)
        torch.manual_seed(0)
        self.network = create_model(name, num_classes=len(classes)).eval()
        self.preprocessing = Preprocessing.parse(self.network.default_preprocessing)
        self.weights = self._load(weights_dir)
        self.info = BundleInfo(name, classes, str(self.preprocessing))

    def _load(self, weights_dir):
        pattern = FILES.get(self.name)
        file = next(iter(sorted(Path(weights_dir).glob(pattern))), None) if pattern and weights_dir else None
        pretrained = find_pretrained(self.name, file or ("auto" if self.name == "efficientnet_lite0" else "none"))
        if pretrained is None:
            for key, value in self.network.state_dict().items():
                value.copy_(weight(key, tuple(value.shape)))
            for module in self.network.modules():
                if isinstance(module, nn.Conv2d):
                    _lean_to_identity(module)
            return "random"
        pretrained.load_into(self.network, None)
        self.preprocessing = Preprocessing.parse(pretrained.preprocessing)
        return "real"

    def read(self, samples):
        return read(samples, self.info.classes, self.preprocessing, DEFAULT_LIMITS, self.terminal, "photos")

    def prepare(self):
        """Give a random network statistics and classes of its own, then fit the classifier; the held-out photos."""
        fit, held = self.read(self.fit), self.read(self.held)
        if self.weights == "random":
            self._estimate_statistics(fit.pixels)
        features = self._features(fit.pixels)
        main = PCA(COMPONENTS, whiten=self.weights == "real", random_state=0).fit(features)
        found = main.transform(features)
        scale = 1 if self.weights == "real" else found.std()
        if self.weights == "random":
            clusters = KMeans(len(self.info.classes), n_init=10, random_state=0).fit(found)
            others = clusters.predict(main.transform(self._features(held.pixels)))
            fit, held = replace(fit, targets=clusters.labels_), replace(held, targets=others.astype(np.int64))
        model = LogisticRegression(max_iter=1000).fit(found / scale, fit.targets)
        whitening = np.sqrt(main.explained_variance_) if main.whiten else scale
        weights = model.coef_ / whitening @ main.components_
        with torch.no_grad():
            self.network.classifier.weight.copy_(torch.from_numpy(weights))
            self.network.classifier.bias.copy_(torch.from_numpy(model.intercept_ - weights @ main.mean_))
        return fit, held

    def _estimate_statistics(self, pixels):
        norms = [module for module in self.network.modules() if isinstance(module, NORMS)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        with torch.no_grad():
            for start in range(0, min(len(pixels), 96), 24):
                self.network(torch.from_numpy(self.preprocessing.normalized(pixels[start : start + 24])))
        self.network.eval()

    def _features(self, pixels):
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pixels), 16):
                images = torch.from_numpy(self.preprocessing.normalized(pixels[start : start + 16]))
                rows.append(self.network.pooled(self.network.forward_features(images)).numpy())
        return np.concatenate(rows)


def _lean_to_identity(convolution):
    """Half of a filter passes its own channel on, half is random: what tells photos apart then reaches the classifier,
    and rounding is not amplified from layer to layer, as it is where every filter is random."""
    passing = torch.empty_like(convolution.weight)
    nn.init.dirac_(passing, convolution.groups)
    with torch.no_grad():
        scale = convolution.weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        there = passing.square().sum((1, 2, 3), keepdim=True)
        convolution.weight.copy_((convolution.weight + scale * passing) / torch.sqrt(1 + there))


def agreement(name, arguments, terminal):
    """One row: float32 and int8 against torch on the held-out half."""
    prepared = Prepared(name, arguments.photos, arguments.weights_dir, terminal)
    fit, held = prepared.prepare()
    engine = TorchEngine(prepared.network, prepared.preprocessing)
    reference = answers(engine, held.pixels, terminal)
    graph = to_openvino(prepared.network, prepared.preprocessing)
    search = Search(graph, fit, held, held, 1.0, arguments.max_drop, terminal)
    quantised, report = described(search, SETTINGS, timed=False)
    row = {
        "family": find(name).family,
        "network": name,
        "particular": NETWORKS[name],
        "weights": prepared.weights,
        "input": "×".join(map(str, prepared.preprocessing.output_size)),
        "photos": len(held),
        "top1": float((reference.argmax(1) == held.targets).mean()),
        "float32": compared(reference, answers(OpenVinoEngine(graph), held.pixels, terminal)),
        "int8": compared(reference, answers(OpenVinoEngine(quantised), held.pixels, terminal)) if quantised else None,
        "report": report.as_dict() | {"errors": len(report.findings)},  # no paths of this machine
    }
    for kind, model in (("float32", graph), ("int8", quantised)):
        if model:
            path = arguments.work / f"{name}-{kind}.xml"
            import_openvino().save_model(model, path, compress_to_fp16=False)
            row[kind]["megabytes"] = path.with_suffix(".bin").stat().st_size / 1e6
    return row


def compared(reference, found):
    """Equal labels, and how far the logits moved: root mean square, and the largest, relative to their own scale."""
    return {
        "labels_equal": float((reference.argmax(1) == found.argmax(1)).mean()),
        "logit_error": logit_error(reference, found),
        "largest": float(np.abs(reference - found).max() / np.abs(reference).max()),
    }


def speed(name, arguments, terminal):
    """Photos a second of torch, OpenVINO in float32 and in int8, all in turn."""
    prepared = Prepared(name, arguments.photos, arguments.weights_dir, terminal)
    pixels = prepared.read(prepared.held[:16]).pixels
    graphs = [arguments.work / f"{name}-{kind}.xml" for kind in ("float32", "int8")]
    engines = [TorchEngine(prepared.network, prepared.preprocessing)]
    engines += [OpenVinoEngine(graph) for graph in graphs if graph.exists()]
    rates = measure_rates(engines, pixels)
    return {kind: rate.as_dict() for kind, rate in zip(("torch", "float32", "int8"), rates, strict=False)}


def write(rows, command, out):
    """The table for people and for programs."""
    machine = describe_machine()
    document = {"command": command, "machine": vars(machine), "rows": rows}
    out.with_suffix(".json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    lines = [
        "# Every family in float32 and int8",
        "",
        "Written by `benchmarks/predict/families.py`, whose first lines say what the weights are; do not edit.",
        "",
        f"    {command}",
        "",
        f"{machine.cpu}, {machine.cores} cores. All figures are of the network alone on {counted(rows)} "
        "that neither fitted the classifier nor calibrated int8. *Labels* is the share of photos that get torch's "
        "label, *error* the root mean square of the change of the logits relative to their deviation, *drop* the loss "
        "of top-1 in points with its 95 % interval, *layers* those with weights that this machine computes in int8.",
        "",
        "This shows that every family is quantised and runs, not what int8 costs a trained network: where weights are "
        "*random* the classes are clusters of the network's own features, and *top-1* says how many photos fall on "
        f"theirs. {gate(rows)}",
        "",
        "| family | network | weights | top-1 | float32 error | labels | int8 error | labels | drop | layers | "
        "images/s torch | float32 | int8 | MB float32 | int8 |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [line(row) for row in rows]
    named = [row for row in rows if row["report"]["float_layers"] or row["report"]["not_executed"]]
    lines += ["", "Layers that stay float:", ""] if named else ["", "No layer stays float."]
    for row in named:
        layers = row["report"]["float_layers"] + row["report"]["not_executed"]
        lines.append(f"- {row['network']}: {', '.join(layers)}")
    others = [row for row in rows if len(row["report"]["trials"]) > 1]
    lines += ["", "More than the plainest setting was needed by:", ""] if others else []
    for row in others:
        tried = [f"{trial['setting']} ({trial['choosing']['points']:.1f} points)" for trial in row["report"]["trials"]]
        lines.append(f"- {row['network']}: {'; '.join(tried)}{'' if row['int8'] else ' — refused'}")
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")


def gate(rows):
    """What the search was allowed, in a sentence."""
    allowed = sorted({row["report"]["max_drop"] for row in rows})
    if allowed == [100.0]:
        return "The gate was open: each row is the plainest setting, whatever it lost; `taxonet export` allows 1 point."
    return f"Points that the search allowed: {', '.join(f'{drop:g}' for drop in allowed)}."


def counted(rows):
    """How many photos the rows are of, and which have another number, as some could not be read."""
    usual = max(row["photos"] for row in rows)
    others = ", ".join(f"{row['network']} {row['photos']}" for row in rows if row["photos"] != usual)
    return f"{usual} photos" + (f" ({others})" if others else "")


def line(row):
    report, rates = row["report"], row.get("speed", {})
    int8, drop = row["int8"], report["drop"]
    shown = [
        row["family"],
        f"{row['network']}" + (f" ({row['particular']})" if row["particular"] else ""),
        row["weights"],
        f"{row['top1']:.3f}",
        f"{row['float32']['logit_error']:.0e}",
        f"{row['float32']['labels_equal']:.3f}",
        f"{int8['logit_error']:.3f}" if int8 else "refused",
        f"{int8['labels_equal']:.3f}" if int8 else "",
        f"{drop['points']:.1f} ({drop['points_ci'][0]:.1f} to {drop['points_ci'][1]:.1f})" if drop else "",
        f"{report['layers'] - len(report['float_layers']) - len(report['not_executed'])}/{report['layers']}",
        *(f"{rates[kind]['per_second']:.0f}" if kind in rates else "" for kind in ("torch", "float32", "int8")),
        f"{row['float32']['megabytes']:.1f}",
        f"{int8['megabytes']:.1f}" if int8 else "",
    ]
    return f"| {' | '.join(shown)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--only", default="*", help="names of networks, a pattern or several with commas")
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/families"))
    parser.add_argument("--max-drop", type=float, default=100.0)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path, default=HERE / "docs/engines_table")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = arguments.work / "rows.json"
    rows = json.loads(store.read_text("utf-8")) if store.exists() else {}
    patterns = arguments.only.split(",")
    for name in (n for n in NETWORKS if any(fnmatch.fnmatch(n, pattern) for pattern in patterns)):
        with Terminal() as terminal:
            if arguments.speed:
                if name in rows:
                    rows[name]["speed"] = speed(name, arguments, terminal)
            else:
                rows[name] = agreement(name, arguments, terminal) | {"speed": rows.get(name, {}).get("speed", {})}
        store.write_text(json.dumps(rows), "utf-8")
        print(line(rows[name]) if name in rows else f"{name}: no graphs yet", flush=True)
    known = [rows[name] for name in NETWORKS if name in rows]
    write(known, "python benchmarks/predict/families.py PHOTOS --weights-dir WEIGHTS [--speed]", arguments.out)


if __name__ == "__main__":
    main()
