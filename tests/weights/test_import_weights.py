"""`taxonet import`: a foreign checkpoint becomes a bundle, or is refused with a sentence that names what is wrong."""

import json

import numpy as np
import pytest
import torch
from tests.weights.test_conversion import foreign_state

import taxonet
from taxonet.cli.app import main
from taxonet.errors import BundleError, UsageError
from taxonet.networks import create_model
from taxonet.weights.bundle import read_info
from taxonet.weights.conversion import own_modules
from taxonet.weights.layouts import layouts_of
from taxonet.weights.networks import open_model

NAMES = ("ant", "bee", "cat")


@pytest.fixture
def checkpoint(tmp_path):
    """A torchvision MobileNet v2 of three classes, nested and prefixed as training scripts leave it."""
    network, state = foreign_state("mobilenet_v2_035", "torchvision", num_classes=3)
    path = tmp_path / "last.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    return network.eval(), path


def logits(network, seed=0):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return network(images)


def test_a_nested_checkpoint_becomes_a_bundle_with_the_same_answers(checkpoint, tmp_path):
    network, path = checkpoint
    done = taxonet.import_weights(path, "mobilenetv2_035", tmp_path / "out.safetensors", classes=NAMES, licence="MIT")
    assert (done.variant, done.layout, done.classes) == ("mobilenet_v2_035", "torchvision", 3)
    info, opened = open_model(done.bundle)
    assert info.classes == NAMES
    assert info.licence == "MIT"
    assert info.provenance["sha256"] == done.sha256
    assert logits(opened).equal(logits(network))


def test_class_names_from_files_and_their_count(checkpoint, tmp_path):
    _, path = checkpoint
    lines, listed, short = tmp_path / "names.txt", tmp_path / "names.json", tmp_path / "short.txt"
    lines.write_text("\n".join(NAMES) + "\n")
    listed.write_text(json.dumps(NAMES))
    short.write_text("ant\n")
    for file in (lines, listed):
        done = taxonet.import_weights(path, "mobilenet_v2_035", tmp_path / "out.safetensors", classes=file)
        assert read_info(done.bundle).classes == NAMES
    for classes, sentence in (
        (None, "3 outputs and name no classes"),
        (short, "3 outputs, .* names 1 classes"),
        ("cifra10", "did you mean 'cifar10'"),
        ("imagenet", "imagenet names 1000 classes"),
    ):
        with pytest.raises(UsageError, match=sentence):
            taxonet.import_weights(path, "mobilenet_v2_035", tmp_path / "no.safetensors", classes=classes)
    assert not (tmp_path / "no.safetensors").exists()


def test_a_background_class_is_dropped(checkpoint, tmp_path):
    network, path = checkpoint
    done = taxonet.import_weights(path, "mobilenet_v2_035", tmp_path / "out.safetensors", classes=["bee", "cat"])
    _, opened = open_model(done.bundle)
    assert torch.allclose(logits(opened), logits(network)[:, 1:])
    assert any("background" in note for note in done.adapted)


def test_bgr_weights_answer_rgb_pictures(checkpoint, tmp_path):
    network, path = checkpoint
    done = taxonet.import_weights(path, "mobilenet_v2_035", tmp_path / "out.safetensors", classes=NAMES, bgr=True)
    _, opened = open_model(done.bundle)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(opened(images.flip(1)), network(images), atol=1e-6)


def test_a_thousand_outputs_are_imagenet_s_and_said_so(tmp_path):
    _, state = foreign_state("mobilenet_v2_035", "timm")
    torch.save(state, tmp_path / "timm.pth")
    done = taxonet.import_weights(tmp_path / "timm.pth", "mobilenet_v2_035", tmp_path / "out.safetensors")
    assert done.layout == "timm"
    assert "assumed" in done.classes_from
    coffee = np.zeros((64, 64, 3), np.uint8)
    assert taxonet.load(done.bundle).predict(coffee)[0].label in read_info(done.bundle).classes


@pytest.mark.parametrize(
    ("words", "kind", "sentence"),
    [
        ({"name": "mobilenet_v2_05"}, UsageError, "did you mean"),
        ({"source": "torchvison"}, UsageError, "did you mean 'torchvision'"),
        ({"source": "timm"}, BundleError, "tried: timm"),
        ({"name": "mobilenet_v2_050"}, BundleError, "has the shape"),
        ({"name": "densenet121"}, BundleError, "not those of densenet121"),
        ({"preprocessing": "resize(9) | normalise(half)"}, UsageError, "did you mean 'normalize'"),
        ({"preprocessing": "grey | resize(64) | center_crop(64) | normalize(half)"}, UsageError, "gives 1 channels"),
        ({"path": "nowhere.pth"}, UsageError, "does not exist"),
    ],
)
def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(checkpoint, tmp_path, words, kind, sentence):
    arguments = {"path": checkpoint[1], "name": "mobilenet_v2_035", "out": tmp_path / "out.safetensors", **words}
    with pytest.raises(kind, match=sentence) as caught:
        taxonet.import_weights(**arguments, classes=NAMES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_missing_and_a_surplus_tensor_are_named(checkpoint, tmp_path):
    _, state = foreign_state("mobilenet_v2_035", "torchvision", num_classes=3)
    lost = dict(state)
    del lost["features.2.conv.0.0.weight"]
    surplus = {**state, "features.2.conv.0.0.bias": torch.zeros(1)}
    for content, name in ((lost, "features.2.conv.0.0.weight"), (surplus, "features.2.conv.0.0.bias")):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(BundleError, match=name):
            taxonet.import_weights(tmp_path / "odd.pth", "mobilenet_v2_035", tmp_path / "no", classes=NAMES)


def test_the_command(checkpoint, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES))
    words = ["import", checkpoint[1], "--as", "mobilenet_v2_035", "--classes", names, "--out", tmp_path / "out"]
    assert main([*map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["variant"], found["layout"], found["tensors"]) == ("mobilenet_v2_035", "torchvision", 262)
    assert main([*map(str, words), "--from", "taxonet"]) == 3
    assert "tried: taxonet" in capsys.readouterr().err
    assert main(list(map(str, words))) == 0
    assert "all matched by name and shape" in capsys.readouterr().out


def test_the_auxiliary_heads_of_googlenet_are_left_out_unless_asked_for(tmp_path):
    """torchvision's file has them, untrained; its pictures are normalised to -1 … 1."""
    torch.manual_seed(0)
    network = create_model("googlenet_torchvision", num_classes=3, aux_heads=True)
    layout = layouts_of("googlenet")["torchvision"]
    theirs = dict(zip(own_modules(network), layout(network), strict=True))
    state = {f"{theirs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": v for key, v in network.state_dict().items()}
    assert state["aux2.fc2.weight"].shape == (3, 1024)
    torch.save(state, tmp_path / "googlenet.pth")
    plain, whole = (
        taxonet.import_weights(
            tmp_path / "googlenet.pth",
            "googlenet_torchvision",
            tmp_path / f"{name}.safetensors",
            classes=NAMES,
            **options,
        )
        for name, options in (("plain", {}), ("whole", {"aux_heads": True}))
    )
    assert plain.preprocessing.endswith("normalize(half)")
    assert any("auxiliary heads" in note for note in plain.adapted)
    assert not any("auxiliary heads" in note for note in whole.adapted)
    network.eval()
    assert logits(open_model(plain.bundle)[1]).equal(logits(network))
    opened = open_model(whole.bundle)[1]
    assert all(value.equal(opened.state_dict()[key]) for key, value in network.state_dict().items())
    with pytest.raises(BundleError, match="not those of googlenet:"):
        taxonet.import_weights(tmp_path / "googlenet.pth", "googlenet", tmp_path / "no.safetensors", classes=NAMES)
