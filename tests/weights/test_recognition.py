"""The options that a foreign file needs: set by what is known of it, or refused with the choice, never guessed."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.golden.compare import GOLDEN
from tests.golden.weights import images, weight
from tests.weights.test_conversion import foreign_state

import taxonet
from taxonet.cli.app import main
from taxonet.errors import BundleError, UsageError
from taxonet.networks import create_model
from taxonet.weights import catalogue
from taxonet.weights.catalogue import find_entry
from taxonet.weights.checkpoint_files import sha256_of
from taxonet.weights.networks import find_pretrained, open_model

SYMMETRIC = {"padding": "symmetric", "norm_eps": 1e-5}


def saved(path, golden):
    """A peer's file, made from the shapes of its fixture."""
    shapes = json.loads(str(np.load(GOLDEN / f"{golden}.npz")["shapes"]))
    torch.save({key: weight(key, tuple(shape)) for key, shape in shapes.items()}, path)
    return path


def wrong_by(bundle, golden):
    """How far a bundle's logits are from the peer's, relative to the largest."""
    fixture = np.load(GOLDEN / f"{golden}.npz")
    with torch.no_grad():
        ours = open_model(bundle)[1](images(int(fixture["size"]))).numpy()
    return np.abs(ours - fixture["logits"]).max() / np.abs(fixture["logits"]).max()


@pytest.mark.parametrize(
    ("golden", "name", "source", "options"),
    [
        ("torchvision-efficientnet_b0", "efficientnet_b0", None, SYMMETRIC),
        ("torchvision-efficientnet_b0", "efficientnet_b0", "torchvision", SYMMETRIC),
        ("torchvision-efficientnet_b0", "tf_efficientnet_b0", None, SYMMETRIC),  # the file says more than the spelling
        ("timm-tf_efficientnet_b0", "tf_efficientnet_b0", None, {}),
        ("timm-efficientnet_b0", "efficientnet_b0", "timm", SYMMETRIC),
        ("timm-tf_mobilenetv3_small_100", "tf_mobilenetv3_small_100", "timm", {"padding": "same"}),
        ("timm-mobilenetv3_small_100", "mobilenetv3_small_100", None, {"norm_eps": 1e-5}),
        ("torchvision-mobilenet_v3_small", "mobilenet_v3_small", None, {}),
        ("timm-mobilenetv1_100", "mobilenet_v1", None, {"activation": "relu6"}),
        ("timm-resnet18", "resnet18", "timm", {}),
        ("timm-densenet121", "densenet121", "timm", {}),
        ("timm-legacy_seresnet50", "seresnet50", "timm", {}),
        ("timm-seresnet50", "seresnet50_v15", None, {"caffe_pool": False}),
        ("timm-seresnext50_32x4d", "seresnext50_32x4d", None, {"caffe_pool": False}),
        ("timm-legacy_seresnext50_32x4d", "seresnext50_32x4d", None, {}),
    ],
)
def test_an_imported_port_answers_as_it_does_at_home(tmp_path, golden, name, source, options):
    path = saved(tmp_path / "net.pth", golden)
    done = taxonet.import_weights(path, name, tmp_path / "net.safetensors", source=source)
    assert done.options == options
    assert done.warning is None
    assert golden.partition("-")[2] in done.options_from
    assert wrong_by(done.bundle, golden) < 1e-5


@pytest.mark.parametrize(
    ("golden", "name", "source", "ways"),
    [
        (
            "timm-tf_efficientnet_b0",
            "efficientnet_b0",
            None,
            r"--as tf_efficientnet_b0 \(the options that are the default here\) or "
            r"--as efficientnet_b0 --from timm \(padding=symmetric, norm_eps=1e-05\), or give",
        ),
        (
            "timm-mobilenetv3_small_100",
            "mobilenet_v3_small",
            "timm",
            r"--as tf_mobilenetv3_small_100 \(padding=same\) or --as mobilenetv3_small_100 \(norm_eps=1e-05\)",
        ),
    ],
)
def test_names_that_do_not_tell_the_forms_apart_are_refused(tmp_path, golden, name, source, ways):
    path = saved(tmp_path / "net.pth", golden)
    with pytest.raises(UsageError, match=ways) as caught:
        taxonet.import_weights(path, name, tmp_path / "net.safetensors", source=source)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "net.safetensors").exists()
    if source is None:  # the same road for training
        with pytest.raises(UsageError, match=ways):
            find_pretrained(name, path)


def test_given_options_are_a_choice_and_win(tmp_path):
    path = saved(tmp_path / "net.pth", "timm-efficientnet_b0")
    done = taxonet.import_weights(path, "efficientnet_b0", tmp_path / "a", **SYMMETRIC)
    assert done.options_from == "given"
    assert wrong_by(done.bundle, "timm-efficientnet_b0") < 1e-5
    forced = taxonet.import_weights(path, "efficientnet_b0", tmp_path / "b", source="timm", padding="same")
    assert forced.options == {"padding": "same", "norm_eps": 1e-5}
    assert forced.options_from == "given; otherwise those of timm: efficientnet_b0"
    assert wrong_by(forced.bundle, "timm-efficientnet_b0") > 1e-4


def test_the_difference_that_is_refused_is_real(tmp_path):
    """timm's plain weights in the tf_ form answer otherwise: this is what nobody gets by accident."""
    path = saved(tmp_path / "net.pth", "timm-efficientnet_b0")
    done = taxonet.import_weights(path, "tf_efficientnet_b0", tmp_path / "net.safetensors")
    assert wrong_by(done.bundle, "timm-efficientnet_b0") > 1e-4


def test_a_name_that_is_another_network_here_is_refused(tmp_path):
    path = saved(tmp_path / "net.pth", "timm-seresnet50")
    with pytest.raises(UsageError, match=r"timm's seresnet50, which is seresnet50_v15 here .*say --as seresnet50_v15"):
        taxonet.import_weights(path, "seresnet50", tmp_path / "net.safetensors")


def test_a_form_that_no_library_has_is_warned_of(tmp_path, capsys):
    _, state = foreign_state("resnet50_v1", "torchvision")
    torch.save(state, tmp_path / "net.pth")
    words = ["import", str(tmp_path / "net.pth"), "--as", "resnet50_v1", "--out", str(tmp_path / "net.safetensors")]
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "assumed: the network's own" in captured.out
    assert captured.err.startswith(
        "taxonet: warning: resnet50_v1 is not among the known networks of timm and torchvision"
    )
    assert "stride_at=1x1" in captured.err


def test_names_of_code_whose_form_is_the_default_need_no_warning(tmp_path):
    _, state = foreign_state("efficientnet_b0", "lukemelas")
    torch.save(state, tmp_path / "net.pth")
    done = taxonet.import_weights(tmp_path / "net.pth", "efficientnet_b0", tmp_path / "net.safetensors")
    assert (done.options, done.options_from, done.warning) == ({}, "the network's own", None)


def test_a_bundle_keeps_its_own_options(tmp_path):
    path = saved(tmp_path / "net.pth", "torchvision-efficientnet_b0")
    first = taxonet.import_weights(path, "efficientnet_b0", tmp_path / "first.safetensors")
    again = taxonet.import_weights(first.bundle, "efficientnet_b0", tmp_path / "again.safetensors", licence="MIT")
    assert again.options_from == "the bundle's"
    assert wrong_by(again.bundle, "torchvision-efficientnet_b0") < 1e-5


def test_training_and_create_model_take_the_same_options(tmp_path):
    path = saved(tmp_path / "net.pth", "torchvision-efficientnet_b0")
    assert find_pretrained("efficientnet_b0", path).options == SYMMETRIC
    network = taxonet.create_model("efficientnet_b0", weights=path).eval()
    fixture = np.load(GOLDEN / "torchvision-efficientnet_b0.npz")
    with torch.no_grad():
        ours = network(images(int(fixture["size"]))).numpy()
    assert np.abs(ours - fixture["logits"]).max() < 1e-5 * np.abs(fixture["logits"]).max()


def test_the_command_takes_options(tmp_path, capsys):
    path = saved(tmp_path / "net.pth", "timm-efficientnet_b0")
    words = ["import", str(path), "--as", "efficientnet_b0", "--out", str(tmp_path / "net.safetensors")]
    options = ["--option", "padding=symmetric", "--option", "norm_eps=1e-5"]
    assert main([*words, *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == SYMMETRIC
    assert wrong_by(tmp_path / "net.safetensors", "timm-efficientnet_b0") < 1e-5
    for wrong, sentence in (
        ("padding", "must be a name and a value"),
        ("padding=symetric", "must be one of 'symmetric', 'same'; did you mean 'symmetric'"),
        ("paddin=same", "has no option 'paddin'; did you mean 'padding'"),
        ("num_classes=3", "num_classes is no option of weights"),
    ):
        assert main([*words, "--option", wrong]) == 2
        assert sentence in capsys.readouterr().err


def test_weights_as_caffe_trains_them(tmp_path):
    """BGR pixels from 0 to 255 minus a mean: the bundle answers an RGB photo as the network does at home."""
    network, state = foreign_state("mobilenet_v2_035", "torchvision", num_classes=3)
    first = "features.0.0.weight"
    state = {**state, first: state[first] / 100}  # so that inputs of hundreds do not saturate
    torch.save(state, tmp_path / "caffe.pth")
    home = create_model("mobilenet_v2_035", num_classes=3).eval()
    home.load_state_dict({**network.state_dict(), "body.stem.conv.weight": state[first]})
    mean_bgr = (103.939, 116.779, 123.68)
    photo = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pixels = photo[..., ::-1].astype(np.float32) - np.array(mean_bgr, np.float32)
    with torch.no_grad():
        theirs = home(torch.from_numpy(pixels.transpose(2, 0, 1)[None])).softmax(1).numpy()

    means = ", ".join(repr(value / 255) for value in reversed(mean_bgr))
    done = taxonet.import_weights(
        tmp_path / "caffe.pth",
        "mobilenet_v2_035",
        tmp_path / "net.safetensors",
        classes=("ant", "bee", "cat"),
        bgr=True,
        preprocessing=f"rgb | center_crop(64) | normalize(({means}), ({', '.join([repr(1 / 255)] * 3)}))",
    )
    ours = taxonet.load(done.bundle).predict_proba(photo)
    assert np.abs(theirs - 1 / 3).max() > 0.01  # an answer, not a tie
    assert np.allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_file_of_the_catalogue_brings_its_classes_and_its_pictures(tmp_path, monkeypatch):
    """akamaster's CIFAR nets say neither, and take ImageNet's mean and deviation."""
    path = tmp_path / "resnet20.th"
    _, theirs = foreign_state("resnet20_cifar", "akamaster")
    torch.save({"state_dict": {f"module.{key}": value for key, value in theirs.items()}}, path)
    entry = replace(find_entry("resnet20_cifar"), sha256=sha256_of(path), sha256_prefix="")
    monkeypatch.setattr(catalogue, "entries", lambda: (entry,))
    done = taxonet.import_weights(path, "resnet20_cifar", tmp_path / "net.safetensors")
    info, _ = open_model(done.bundle)
    assert info.classes == entry.class_names()
    assert info.preprocessing == "exif | rgb | resize(32, bicubic) | center_crop(32) | normalize(imagenet)"
    assert done.classes_from == done.preprocessing_from == "the catalogue's for resnet20_cifar.akamaster"


def test_caffe_s_residual_nets_are_not_taken_for_the_other_form(tmp_path):
    path = saved(tmp_path / "net.pth", "timm-legacy_seresnet50")
    with pytest.raises(UsageError, match=r"say --as seresnet50$"):
        taxonet.import_weights(path, "seresnet50_v15", tmp_path / "net.safetensors")


def test_caffe_s_names_do_not_tell_two_alexnets_apart(tmp_path):
    _, theirs = foreign_state("alexnet_bvlc", "caffe")
    torch.save(theirs, tmp_path / "net.pth")
    done = taxonet.import_weights(tmp_path / "net.pth", "alexnet_caffenet", tmp_path / "net.safetensors")
    assert done.warning == (
        "files of alexnet_bvlc have the same names and shapes: nothing tells that this one is of alexnet_caffenet"
    )
    with pytest.raises(BundleError, match="not those of alexnet_two_group"):
        taxonet.import_weights(tmp_path / "net.pth", "alexnet_two_group", tmp_path / "net.safetensors")


@pytest.mark.parametrize(("bgr", "turned"), [(None, True), (True, True), (False, False)])
def test_caffe_s_first_convolution_is_turned_unless_it_was(tmp_path, bgr, turned):
    _, theirs = foreign_state("googlenet", "caffe")
    torch.save(theirs, tmp_path / "net.pth")
    done = taxonet.import_weights(tmp_path / "net.pth", "googlenet", tmp_path / "net.safetensors", bgr=bgr)
    ours = open_model(done.bundle)[1].body.stem
    first = next(value for value in ours.parameters() if value.ndim == 4)
    assert torch.equal(first, theirs["conv1/7x7_s2.weight"].flip(1) if turned else theirs["conv1/7x7_s2.weight"])
    assert any("BGR" in note for note in done.adapted) == turned


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"path": "{tmp}"}, "is a folder"),
        ({"path": "{tmp}/none.pth"}, "does not exist"),
        ({"path": __file__, "out": "{tmp}/net.pth"}, "has the name of another format"),
    ],
)
def test_wrong_files_are_one_sentence(tmp_path, arguments, sentence):
    values = {"path": __file__, "out": str(tmp_path / "net.safetensors")} | arguments
    values = {key: value.replace("{tmp}", str(tmp_path)) for key, value in values.items()}
    with pytest.raises(UsageError, match=sentence):
        taxonet.import_weights(values["path"], "resnet18", values["out"])
