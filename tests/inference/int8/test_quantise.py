"""Int8 of a small network: what it answers, what it reports, and when it is refused."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from taxonet.console import Silent
from taxonet.errors import UsageError
from taxonet.images import Preprocessing
from taxonet.inference import load
from taxonet.inference.conversion import to_openvino
from taxonet.inference.export import export
from taxonet.inference.int8 import graph
from taxonet.inference.int8.photos import Photos
from taxonet.inference.int8.quantise import quantise
from taxonet.inference.int8.search import SETTINGS, Search
from taxonet.inference.int8.silence import OutOfTimeError, quiet_nncf
from taxonet.inference.int8.writing import photos_for
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.networks import open_model

PLAIN, SENSITIVE = SETTINGS[0], SETTINGS[4]


@pytest.fixture(scope="module")
def photos(fill, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("photos"), red=9, green=9, blue=9)


@pytest.fixture(scope="module")
def network(small_bundle):
    return open_model(small_bundle)


def float_graph(network, info):
    return to_openvino(network, Preprocessing.parse(info.preprocessing))


@pytest.fixture(scope="module")
def exported(small_bundle, photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("int8") / "colours"
    return export(small_bundle, to="openvino", out=out, data=photos, int8=True, calibration=6)


def test_the_int8_file_answers_with_the_bundles_labels_and_is_smaller(exported, small_bundle, photos):
    assert exported.problem is None
    paths = sorted(photos.rglob("*.png"))
    reference, found = load(small_bundle, "torch"), load(exported.files[0], "openvino")
    assert [a.label for a in found.predict(paths)] == [a.label for a in reference.predict(paths)]
    probabilities = found.predict_proba(paths)
    assert not np.array_equal(probabilities, reference.predict_proba(paths))
    np.testing.assert_allclose(probabilities, reference.predict_proba(paths), atol=0.1)
    assert exported.int8.sizes["int8"] < exported.int8.sizes["float"]


def test_the_file_says_how_it_was_quantised(exported):
    record = load(exported.files[0], "openvino").info.provenance["quantisation"]
    assert record["setting"] == exported.int8.setting
    assert record["photos"] == {"calibration": 6, "measured": 21}
    assert record["drop"]["n"] == 21


def test_every_layer_is_int8_and_runs_so_the_first_one_behind_the_preprocessing_too(exported):
    report = exported.int8
    assert report.layers == 22
    assert report.float_layers == report.not_executed == ()


def test_the_report_has_speed_and_agreement_and_its_json_form_is_plain(exported):
    document = json.loads(json.dumps(exported.as_dict()))["int8"]
    assert list(document["rates"]) == ["float", "int8"]
    assert set(document["rates"]["int8"]) == {"per_second", "single_ms"}
    assert document["agreement"] == 1
    assert 0 < document["logit_error"] < 0.5
    assert any("one photo of 21 weighs 4.8 points" in note for note in document["notes"])


def test_the_same_seed_gives_the_same_bytes(exported, small_bundle, photos, tmp_path):
    again = export(small_bundle, to="openvino", out=tmp_path / "again", data=photos, int8=True, calibration=6)
    assert again.files[1].read_bytes() == exported.files[1].read_bytes()


def test_a_drop_beyond_what_is_allowed_leaves_no_file_and_says_what_was_tried(network, photos):
    info, module = network
    found, report = quantise(
        float_graph(module, info), info, photos, max_drop=-1, count=6, settings=(PLAIN, SENSITIVE), timed=False
    )
    assert found is None
    assert not report.kept
    assert [trial.setting for trial in report.trials] == [PLAIN.name, SENSITIVE.name]
    assert report.trials[1].float_layers > report.trials[0].float_layers == 0
    assert f"{PLAIN.name}: top-1 drops by 0.00 points, a gain of 1 is asked for" in report.problem


def words_of(bundle, photos, out, *more):
    """The arguments of `taxonet export --int8 --json`."""
    words = ["export", bundle, "--to", "openvino", "--int8", "--data", photos, "--out", out, *more, "--json"]
    return [str(word) for word in words]


@pytest.mark.slow
def test_a_refused_export_has_tried_everything_and_leaves_nothing(run_taxonet, small_bundle, photos, tmp_path):
    done = run_taxonet(*words_of(small_bundle, photos, tmp_path / "refused", "--max-drop", -100))
    assert done.returncode == 1
    trials = json.loads(done.stdout)["int8"]["trials"]
    assert [trial["setting"] for trial in trials] == [setting.name for setting in SETTINGS]
    assert list(tmp_path.iterdir()) == []


def test_a_channel_that_dwarfs_the_others_is_refused_and_the_layer_that_it_breaks_is_found(small_bundle, photos):
    info, network = open_model(small_bundle)
    norm = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)][-1]
    with torch.no_grad():  # the same function: what grows before the classifier shrinks in it
        channel = int(network.classifier.weight.abs().amax(dim=0).argmax())
        norm.weight[channel] *= 1e4
        norm.bias[channel] *= 1e4
        network.classifier.weight[:, channel] /= 1e4
    model = float_graph(network, info)
    found, report = quantise(model, info, photos, count=9, settings=(PLAIN,), timed=False)
    assert found is None
    assert report.trials[0].choosing.points > 20
    assert f"top-1 drops by {report.trials[0].choosing.points:.2f} points, more than 1" in report.problem
    pixels = np.stack([Preprocessing.parse(info.preprocessing).pixels(path) for path in sorted(photos.rglob("*.png"))])
    some = Photos(pixels, np.repeat([2, 1, 0], 9))
    search = Search(model, some, some, some, temperature=1.0, max_drop=100, listener=Silent())
    lost = graph.losses(model, search.run((PLAIN,)).model, [pixels])
    assert max(lost, key=lost.get).endswith("classifier/aten::linear/MatMul")


def test_broken_and_strange_photos_are_findings(network, fill, paint, broken_jpeg, tmp_path):
    fill(tmp_path, red=4, green=4, blue=4)
    (tmp_path / "red" / "broken.jpg").write_bytes(broken_jpeg.read_bytes())
    paint(tmp_path / "violet" / "0.png")
    info, module = network
    _, report = quantise(float_graph(module, info), info, tmp_path, count=4, max_drop=100, timed=False)
    assert len(report.findings) == 2
    assert sum(report.photos.values()) == 12


def test_nncf_is_stopped_when_its_time_is_over(network):
    info, module = network
    height, width = Preprocessing.parse(info.preprocessing).output_size
    one = np.zeros((1, height, width, 3), np.uint8)
    with pytest.raises(OutOfTimeError), quiet_nncf(Silent(), 0) as nncf:
        nncf.quantize(float_graph(module, info), nncf.Dataset([one]))


def test_names_of_layers_are_those_of_the_network(network):
    info, module = network
    names = [layer.name for layer in graph.layers(float_graph(module, info))]
    assert names[-1] == "classifier"
    assert not any("aten" in name or "__module" in name for name in names)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"to": "onnx"}, "int8 is written for openvino, not for onnx"),
        ({"max_drop": 101}, "max_drop is 101"),
        ({"calibration": 0}, "calibration is 0"),
        ({"data": None}, "int8 needs labelled photos, give them with --data"),
    ],
)
def test_wrong_options_are_told_before_the_work(small_bundle, photos, tmp_path, options, sentence):
    options = {"to": "openvino", "data": photos, **options}
    with pytest.raises(UsageError, match=sentence):
        export(small_bundle, out=tmp_path / "x", int8=True, **options)


def test_a_run_brings_its_own_photos(small_bundle, photos, tmp_path):
    bundle = tmp_path / "model.safetensors"
    bundle.write_bytes(small_bundle.read_bytes())
    files = sorted(photos.rglob("*.png"))
    for name, part in (("train", files[::2]), ("val", files[1::2])):
        rows = [f"{path},{path.parent.name}" for path in part]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,label", *rows]), "utf-8")
    found = photos_for(bundle, None)
    assert {name: len(samples) for name, samples in found.splits.items()} == {"train": 14, "val": 13}


GUARD = """
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto", "urllib.Request"):
        print("BREACH", event, arguments, file=sys.stderr)
sys.addaudithook(refuse)
from taxonet.cli.app import main
status = main(sys.argv[1:])
sys.exit(status)
"""


def test_nothing_is_sent_nor_printed_beside_the_json(small_bundle, photos, tmp_path, monkeypatch):
    for name in ("CI", "NNCF_CI", "NNCF_DEV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    arguments = words_of(small_bundle, photos, tmp_path / "x")
    done = subprocess.run([sys.executable, "-c", GUARD, *arguments], capture_output=True, text=True, check=False)
    assert "BREACH" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["int8"]["kept"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "alexnet_two_group",
        "attention56_cifar",
        "bn_inception",
        "densenet_bc_22_12",
        "dpn68",
        "efficientnet_b0",
        "efficientnet_lite0",
        "googlenet",
        "igc_l4m8_8",
        "igcv3_d_cifar",
        "mnasnet_small",
        "mobilenet_v1_025",
        "mobilenet_v2_035",
        "mobilenet_v3_small_075",
        "nfnet_f0",
        "preresnet110_cifar",
        "resnext29_1x64d_cifar",
        "sepreresnet164_cifar",
        "se_shufflenet_v1_g3_x1_0",
        "shufflenet_v2_x0_5",
        "vgg11_lrn",
    ],
)
def test_every_family_computes_most_of_its_layers_in_int8(name, photos, colours):
    from taxonet.networks import create_model

    torch.manual_seed(0)
    module = create_model(name, num_classes=len(colours)).eval()
    info = BundleInfo(name, colours, module.default_preprocessing)
    found, report = quantise(
        float_graph(module, info), info, photos, count=3, max_drop=100, settings=(PLAIN,), timed=False
    )
    assert found is not None
    excited = re.compile(r"(^|\.)(se|excite|gate|fc\d?|attention|squeeze)(\.|$)")  # stays float: NNCF's rule
    others = [layer for layer in report.float_layers if not excited.search(layer)]
    assert len(others) + len(report.not_executed) <= 0.25 * report.layers  # GoogLeNet: 12 of 58 behind its max pooling


def test_photos_that_were_trained_on_are_told_to_flatter(network, photos, tmp_path):
    info, module = network
    (tmp_path / "train.csv").write_text("path\n" + "".join(f"{path}\n" for path in photos.rglob("*.png")))
    bundle = tmp_path / "model.safetensors"
    bundle.touch()
    (tmp_path / "run.json").touch()
    graph_ = float_graph(module, info)
    _, report = quantise(graph_, info, photos, count=9, max_drop=100, timed=False, bundle=bundle)
    assert any(note.startswith("the model was trained on 18 of these 18 pictures") for note in report.notes)
