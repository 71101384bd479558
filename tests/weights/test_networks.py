"""From a file or a name to a network: what fits is opened bit for bit, what does not is refused with a sentence."""

import json
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from taxonet.errors import BundleError, UsageError
from taxonet.networks import create_model
from taxonet.weights.bundle import BundleInfo, read_info
from taxonet.weights.networks import find_pretrained, open_model, save_network

CIFAR = "exif | rgb | resize(32, bicubic) | center_crop(32) | normalize(cifar10)"


def same(left, right):
    return left.keys() == right.keys() and all(value.equal(right[key]) for key, value in left.items())


def read_header(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["taxonet"]), data[8 + length :]


@pytest.fixture
def patched(small_bundle, tmp_path):
    """A copy of the small bundle whose JSON, or whose safetensors header, was changed by hand."""

    def patch(change, of_header=False):
        header, fields, tensors = read_header(small_bundle)
        change(header if of_header else fields)
        header["__metadata__"] = {"taxonet": json.dumps(fields)}
        raw = json.dumps(header).encode()
        path = tmp_path / "patched.safetensors"
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + tensors)
        return path

    return patch


# --- bundles -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("densenet_bc_22_12", {"num_classes": 3, "dropout": 0.1}),
        ("densenet_bc_22_12", {"num_classes": 3, "in_channels": 1, "memory_efficient": True}),
        ("mobilenet_v1_025", {"num_classes": 3}),
        ("mobilenet_v2_035", {"num_classes": 3, "padding": "same", "norm_eps": 1e-3}),
        ("mobilenet_v3_small_035", {"num_classes": 3, "se_before_activation": True}),
        ("efficientnet_lite0", {"num_classes": 3}),
    ],
)
def test_a_saved_network_comes_back_bit_for_bit(tmp_path, name, options):
    torch.manual_seed(1)
    network = create_model(name, **options).train()
    network(torch.randn(2, options.get("in_channels", 3), 64, 64))  # statistics that are not the initial ones
    text = CIFAR.replace("rgb", "grey" if options.get("in_channels") == 1 else "rgb").replace("32", "64")
    info = BundleInfo("another name", ("x", "b", "a"), text, temperature=1.5, metrics={"top1": 0.5})
    path = tmp_path / "model.safetensors"
    save_network(path, info, network)

    told, found = open_model(path)
    assert told.variant == name
    assert (told.classes, told.preprocessing, told.temperature, told.metrics) == (*_facts(info),)
    assert not found.training
    assert same(found.state_dict(), network.state_dict())
    assert dict(found.options) == {"in_channels": 3, **options}
    images = torch.randn(1, options.get("in_channels", 3), 64, 64)
    with torch.no_grad():
        assert found(images).equal(network.eval()(images))


def _facts(info):
    return info.classes, info.preprocessing, info.temperature, dict(info.metrics)


def test_the_tensors_need_nothing_of_taxonet(small_bundle):
    """safetensors and a `load_state_dict` are enough; the file names the arguments of the network."""
    _, fields, _ = read_header(small_bundle)
    assert fields["model"] == {"variant": "densenet_bc_22_12", "options": {"in_channels": 3}}
    network = create_model("densenet_bc_22_12", num_classes=len(fields["classes"]))
    network.load_state_dict(load_file(small_bundle), strict=True)
    assert same(network.state_dict(), open_model(small_bundle)[1].state_dict())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda f: f["model"].update(variant="densenet_bc_22_13"),
            r"no network called .*did you mean 'densenet_bc_22_12'",
        ),
        (lambda f: f["model"].update(variant="mobilenet_v2"), r"the tensor .* is missing \(and \d+ more\)"),
        (lambda f: f["model"].update(variant="densenet_bc_40_12"), r"the tensor .* is missing \(and \d+ more\)"),
        (lambda f: f["model"]["options"].update(dropuot=0.1), r"has no option 'dropuot'; did you mean 'dropout'"),
        (lambda f: f["model"]["options"].update(dropout="much"), r"dropout is 'much', it must be a number"),
        (lambda f: f["model"]["options"].update(dropout=None), r"dropout is None, it must be a number"),
        (lambda f: f["model"]["options"].update(growth=24), r"has no option 'growth'"),
        (lambda f: f["model"]["options"].update(in_channels=1), r"stem.conv.weight' has the shape \(24, 3, 3, 3\)"),
        (lambda f: f["model"]["options"].update(in_channels=4000), r"in_channels is 4000, it must be"),
        (lambda f: f["model"]["options"].update(num_classes=3), r"model.options.num_classes' must be left out"),
        (
            lambda f: f["classes"].append("violet"),
            r"classifier.weight' has the shape \(3, \d+\), and the network has \(4",
        ),
        (lambda f: f["classes"].append("red"), r"'classes' holds 'red' twice"),
        (lambda f: f.update(schema=2), r"written by a newer Taxonet"),
        (lambda f: f.update(colour="blue"), r"unknown key 'colour'"),
        (lambda f: f.pop("classes"), r"the key 'classes' is missing"),
        (lambda f: f.update(preprocessing="rgb | resiz(32) | normalize(unit)"), r"resiz.*did you mean 'resize'"),
        (lambda f: f.update(preprocessing="rgb | resize(32) | normalize(unit)"), r"fixes no size"),
        (lambda f: f.update(preprocessing=CIFAR.replace("rgb", "grey")), r"gives 1 channels, the network takes 3"),
        (lambda f: f.update(preprocessing=CIFAR.replace("32", "3")), r"pictures of 3×3 pixels are too small"),
        (lambda f: f.update(preprocessing="__import__('os').system('true')"), r"patched.safetensors: "),
    ],
)
def test_a_bundle_that_says_what_is_not_so(patched, change, sentence):
    path = patched(change)
    with pytest.raises(BundleError, match=sentence) as caught:
        open_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def rename(header, old, new):
    header[new] = header.pop(old)


def reshape(header, name, shape):
    header[name]["shape"] = shape


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda h: rename(h, "classifier.bias", "classifier.bia"), r"'classifier.bias' is missing; did you mean"),
        (lambda h: reshape(h, "classifier.bias", [3, 1]), r"'classifier.bias' has the shape \(3, 1\), and the network"),
        (lambda h: h["classifier.bias"].update(dtype="I32"), r"'classifier.bias' has the dtype int32, and the network"),
        (lambda h: reshape(h, "classifier.bias", [4]), r"'classifier.bias' needs 16 bytes"),
    ],
)
def test_tensors_that_are_not_the_network_s(patched, change, sentence):
    with pytest.raises(BundleError, match=sentence):
        open_model(patched(change, of_header=True))


def test_a_missing_and_a_surplus_tensor(small_bundle, tmp_path):
    header, _, _ = read_header(small_bundle)
    state = load_file(small_bundle)
    less = {key: value for key, value in state.items() if key != "classifier.bias"}
    for name, tensors, sentence in (
        ("less", less, "the tensor 'classifier.bias' is missing"),
        ("more", state | {"extra": torch.zeros(1)}, "the tensor 'extra' has no place in the network"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(tensors, path, metadata=header["__metadata__"])
        with pytest.raises(BundleError, match=sentence):
            open_model(path)


CLAIM = """
import re, sys
from pathlib import Path

from taxonet.weights.networks import create_model, open_model, torch


def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024


with torch.device("meta"):
    create_model("mobilenet_v2")  # torch loads more of itself at the first use
before = peak()
try:
    open_model(sys.argv[1])
except Exception as error:
    print(error)
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_a_claim_of_very_many_classes_is_refused_before_memory_is_taken(tmp_path):
    """100,000 classes of a network with 1,280 features would be a classifier of 512 MB."""
    claim = BundleInfo("mobilenet_v2", tuple(f"c{i}" for i in range(100_000)), CIFAR)
    with torch.device("meta"):
        state = create_model("mobilenet_v2", num_classes=1).state_dict()
    header, place = {"__metadata__": {"taxonet": claim.to_json()}}, 0
    sizes = {torch.float32: ("F32", 4), torch.int64: ("I64", 8)}
    for name, tensor in state.items():
        dtype, width = sizes[tensor.dtype]
        end = place + tensor.numel() * width
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    raw = json.dumps(header).encode()
    path = tmp_path / "claim.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + place)  # a sparse file: its tensors are never read
    ran = subprocess.run([sys.executable, "-c", CLAIM, path], capture_output=True, text=True, check=True)
    sentence, megabytes = ran.stdout.splitlines()
    assert "'classifier.weight' has the shape (1, 1280), and the network has (100000, 1280)" in sentence
    assert int(megabytes) < 300


# --- what is no bundle -------------------------------------------------------------------------------------


def test_a_pickle_is_never_opened_as_a_model(pickle_file):
    with pytest.raises(BundleError, match=r"it is a PyTorch pickle checkpoint, not a bundle; convert it with"):
        open_model(pickle_file)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("runs/gone.safetensors", BundleError, "there is no such file"),
        ("gone.safetensors", BundleError, "there is no such file"),
        ("efficentnet_lite0", UsageError, "neither a file nor a network; did you mean 'efficientnet_lite0'"),
        ("qqqq", UsageError, "neither a file nor a network; give a bundle's path or a name such as efficientnet_lite0"),
        ("densenet_bc_100_12", UsageError, "catalogue has no weights of densenet_bc_100_12; give a bundle's path"),
        (
            "densenet121.tv_in2k",
            UsageError,
            "called 'densenet121.tv_in2k'; did you mean 'densenet121.tv_in1k'",
        ),
        ("densenet121", UsageError, "not here yet: `taxonet pull densenet121.IMAGENET1K_V1` .*path$"),
    ],
)
def test_names_that_lead_nowhere(name, error, sentence):
    with pytest.raises(error, match=sentence):
        open_model(name)


def test_a_folder_is_no_model_and_hides_none(tmp_path, monkeypatch, small_bundle):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(BundleError, match=r"it is a folder, not a file$"):
        open_model("run")
    (tmp_path / "run" / "model.safetensors").write_bytes(small_bundle.read_bytes())
    with pytest.raises(BundleError, match=r"it is a folder, not a file; did you mean 'run/model.safetensors'\?$"):
        open_model("run")
    (tmp_path / "efficientnet_lite0").mkdir()  # for example the folder of a run that was called so
    assert open_model("efficientnet_lite0")[0].num_classes == 1000


# --- weights to start from ---------------------------------------------------------------------------------


def test_no_weights():
    assert find_pretrained("efficientnet_lite0", "none") is None
    assert find_pretrained("densenet121", "auto") is None


def test_the_weights_of_the_catalogue():
    found = find_pretrained("efficientnet_lite0", "auto")
    info, network = open_model("efficientnet_lite0")
    assert same(found.state, network.state_dict())
    assert found.preprocessing == info.preprocessing
    assert found.provenance["weights"] == "efficientnet_lite0.tpu_in1k"


def test_a_bundle_to_start_from_brings_its_preprocessing(small_bundle, patched):
    other = CIFAR.replace("cifar10", "half")
    path = patched(lambda fields: fields.update(preprocessing=other))
    found = find_pretrained("densenet_bc_22_12", path)
    assert found.preprocessing == other == read_info(path).preprocessing
    assert found.provenance["layout"] == "taxonet"
    assert len(found.provenance["sha256"]) == 64

    network = create_model("densenet_bc_22_12", num_classes=3)
    assert found.load_into(network, read_info(small_bundle).classes) is True
    assert same(network.state_dict(), load_file(small_bundle))


def test_a_plain_safetensors_file_says_nothing_of_its_pictures(small_bundle, tmp_path):
    save_file(load_file(small_bundle), tmp_path / "plain.safetensors")
    found = find_pretrained("densenet_bc_22_12", tmp_path / "plain.safetensors")
    assert found.preprocessing == CIFAR


def test_a_classifier_of_other_classes_is_left_fresh(small_bundle):
    network = create_model("densenet_bc_22_12", num_classes=5)
    fresh = {key: value.clone() for key, value in network.classifier.state_dict().items()}
    assert find_pretrained("densenet_bc_22_12", small_bundle).load_into(network, tuple("abcde")) is False
    assert same(network.classifier.state_dict(), fresh)
    body = {key: value for key, value in load_file(small_bundle).items() if not key.startswith("classifier.")}
    assert same({key: network.state_dict()[key] for key in body}, body)


@pytest.mark.parametrize("classes", [("cat", "dog", "emu"), ("blue", "green", "red")])
def test_a_classifier_of_other_names_or_another_order_is_left_fresh(small_bundle, classes):
    network = create_model("densenet_bc_22_12", num_classes=3)
    fresh = {key: value.clone() for key, value in network.classifier.state_dict().items()}
    assert find_pretrained("densenet_bc_22_12", small_bundle).load_into(network, classes) is False
    assert same(network.classifier.state_dict(), fresh)


@pytest.mark.parametrize("part", ["weight", "bias"])
def test_a_classifier_of_which_half_fits_is_left_fresh(small_bundle, tmp_path, part, colours):
    header, _, _ = read_header(small_bundle)
    state = load_file(small_bundle)
    name = f"classifier.{part}"
    state[name] = torch.cat([state[name], state[name]])  # six classes here, three there
    save_file(state, tmp_path / "half.safetensors", metadata=header["__metadata__"])
    network = create_model("densenet_bc_22_12", num_classes=3)
    fresh = {key: value.clone() for key, value in network.classifier.state_dict().items()}
    found = find_pretrained("densenet_bc_22_12", tmp_path / "half.safetensors")
    assert found.load_into(network, colours) is False
    assert same(network.classifier.state_dict(), fresh)


def test_weights_for_other_pictures(small_bundle):
    with pytest.raises(BundleError, match=r"the weight .*stem.conv.weight has the shape \(24, 3, 3, 3\), the network"):
        find_pretrained("densenet_bc_22_12", small_bundle).load_into(
            create_model("densenet_bc_22_12", num_classes=3, in_channels=1), read_info(small_bundle).classes
        )


def test_files_that_cannot_be_started_from(small_bundle, pickle_file, tmp_path):
    with pytest.raises(UsageError, match=r"gone.pth does not exist, --weights takes auto, none, a file or a name of"):
        find_pretrained("densenet121", tmp_path / "gone.pth")
    with pytest.raises(UsageError, match=r"colours.safetensors is a bundle of \w+, not of mobilenet_v2"):
        find_pretrained("mobilenet_v2", small_bundle)
    with pytest.raises(BundleError, match=r"model.pth: the weights are not those of densenet121: of 1 names 0 fit"):
        find_pretrained("densenet121", pickle_file)
