"""Weights by name: from the hub or a URL into the cache, checked, and from there into every road that takes weights."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub.file_download
import numpy as np
import pytest
import safetensors.torch
import torch
from tests.weights.server import Served
from tests.weights.test_conversion import foreign_state

import taxonet
from taxonet.cli.app import main
from taxonet.errors import BundleError, DataError, DownloadError, UsageError
from taxonet.weights import catalogue
from taxonet.weights.bundle import read_info
from taxonet.weights.catalogue import find_entry
from taxonet.weights.hub import bundle_path, cache_folder
from taxonet.weights.networks import find_pretrained, open_model

HUB = "mobilenetv2_050.lamb_in1k"  # a small network of the catalogue that is on the hub
REPOSITORY = "timm/mobilenetv2_050.lamb_in1k"
URL = "shufflenet_v2_x0_5.IMAGENET1K_V1"  # and one at a URL
PHOTO = np.full((240, 240, 3), 127, np.uint8)


@pytest.fixture(scope="module")
def published():
    """The network of the hub's entry, and its file."""
    network, state = foreign_state("mobilenet_v2_050", "timm")
    return network.eval(), safetensors.torch.save({key: value.contiguous() for key, value in state.items()})


@pytest.fixture
def hub(server, published):
    """(network, server) with the network's file where the hub has it."""
    network, data = published
    server.add_hub(REPOSITORY, "model.safetensors", data)
    return network, server


@pytest.fixture
def at_url(server, monkeypatch, tmp_path):
    """(network, server) with a file at the URL of an entry, whose hash the catalogue then has."""
    network, state = foreign_state("shufflenet_v2_x0_5", "torchvision")
    torch.save(state, tmp_path / "net.pth")
    data = (tmp_path / "net.pth").read_bytes()
    entry = find_entry(URL)
    known = dataclasses.replace(entry, sha256_prefix=hashlib.sha256(data).hexdigest()[:10])
    listed = tuple(known if other is entry else other for other in catalogue.entries())
    monkeypatch.setattr(catalogue, "entries", lambda: listed)
    server.files[f"/mirror/download.pytorch.org/models/{entry.file}"] = Served(data)
    return network.eval(), server


def answers(network):
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return network(x)


def files_of(folder):
    return sorted(p.name for p in Path(folder).rglob("*") if p.is_file() and p.suffix != ".lock")


def test_weights_of_the_hub_become_a_bundle(hub):
    network, server = hub
    done = taxonet.pull(HUB)
    assert (done.name, done.variant, done.new) == (HUB, "mobilenet_v2_050", True)
    assert done.path == bundle_path(find_entry(HUB))
    info, opened = open_model(done.path)
    assert answers(opened).equal(answers(network))
    assert info.preprocessing == "exif | rgb | resize(256, bicubic) | center_crop(224) | normalize(imagenet)"
    assert info.classes[504] == "coffee mug"
    assert info.provenance["weights"] == HUB
    assert info.provenance["hub"] == REPOSITORY
    assert {path for _, path, _ in server.asked} <= set(server.files)  # HF_ENDPOINT, and nothing else


def test_the_second_time_nothing_is_asked(hub, monkeypatch):
    _, server = hub
    taxonet.pull(HUB)
    server.asked.clear()
    assert taxonet.pull(HUB).new is False
    shutil.rmtree(cache_folder())  # the hub's own cache still has the file
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert taxonet.pull(HUB).new is True
    assert taxonet.load(HUB).predict(PHOTO)[0].label
    assert server.asked == []


@pytest.mark.parametrize(
    "name",
    [
        HUB,
        f"timm/{HUB}",
        f"hf-hub:timm/{HUB}",
        "mobilenet_v2_050.lamb_in1k",
        "MobileNetV2_050.LAMB_in1k",
        "mobilenet_v2_050",
        "mobilenetv2_050",
        "mobilenet_v2_050.DEFAULT",
    ],
)
def test_every_spelling_of_a_name(hub, name):
    assert taxonet.pull(name).name == HUB


def test_every_road_takes_the_name(hub):
    network, server = hub
    assert answers(taxonet.create_model("mobilenet_v2_050", weights=HUB).eval()).equal(answers(network))
    bodies = len(server.bodies())
    assert answers(taxonet.create_model("mobilenetv2_050", weights="default").eval()).equal(answers(network))
    assert np.isfinite(taxonet.load(HUB).predict_proba(PHOTO)).all()
    assert taxonet.load("mobilenet_v2_050").info.provenance["weights"] == HUB
    start = find_pretrained("mobilenet_v2_050", HUB)
    assert start.state["classifier.weight"].equal(network.classifier.weight)
    assert start.provenance["weights"] == HUB
    assert find_pretrained("mobilenet_v2_050", "auto").provenance == start.provenance
    assert len(server.bodies()) == bodies == 1


def test_a_bare_network_is_never_fetched_unasked(hub):
    _, server = hub
    with pytest.raises(UsageError, match=rf"not here yet: `taxonet pull {HUB}` brings them"):
        taxonet.load("mobilenet_v2_050")
    assert find_pretrained("mobilenet_v2_050", "auto") is None
    assert server.asked == []


def test_other_classes_keep_the_body_and_get_a_fresh_classifier(hub, caplog):
    network, _ = hub
    caplog.set_level("INFO")
    torch.manual_seed(3)
    made = taxonet.create_model("mobilenet_v2_050", num_classes=5, weights=HUB).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert made.forward_features(images).equal(network.forward_features(images))
        assert made(images).shape == (1, 5)
    assert f"a fresh classifier of 5 outputs on the body of {HUB}" in caplog.text


def test_one_channel_sums_the_filters_and_others_are_refused(hub):
    network, _ = hub
    grey = taxonet.create_model("mobilenet_v2_050", in_channels=1, weights=HUB).eval()
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.allclose(grey(image), network(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="take 3 channels, the network 4: only 3 can be made 1"):
        taxonet.create_model("mobilenet_v2_050", in_channels=4, weights=HUB)


def test_options_of_the_caller_win(hub):
    made = taxonet.create_model("mobilenet_v2_050", weights=HUB, dropout=0.5, padding="same")
    assert made.dropout.p == 0.5
    assert made.options["padding"] == "same"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("mobilenetv2_050.lamb_in1", "no weights called 'mobilenetv2_050.lamb_in1'; did you mean"),
        ("mobilenet_v2_050.zzz", "did you mean 'mobilenetv2_050.lamb_in1k'"),
        ("densnet121", "did you mean 'densenet121'"),
        ("densenet_bc_100_12", "the catalogue has no weights of densenet_bc_100_12"),
    ],
)
def test_unknown_names(name, sentence):
    with pytest.raises(UsageError, match=sentence):
        taxonet.pull(name)


def test_weights_of_another_network(hub):
    with pytest.raises(UsageError, match=r"are weights of mobilenet_v2_050, not of mobilenet_v2$"):
        taxonet.create_model("mobilenet_v2", weights=HUB)
    with pytest.raises(UsageError, match="weights is 'none'"):
        taxonet.create_model("mobilenet_v2", weights="none")


def test_a_file_at_a_url(at_url, monkeypatch):
    network, server = at_url
    done = taxonet.pull("shufflenet_v2_x0_5")
    assert (done.name, done.new) == (URL, True)
    assert done.accuracy.startswith("top-1 60.552 %, top-5 81.746 % (reported by torchvision's metadata")
    assert answers(open_model(done.path)[1]).equal(answers(network))
    asked = list(server.asked)
    bundle_path(catalogue.find_entry(URL)).unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert answers(open_model(URL)[1]).equal(answers(network))
    assert server.asked == asked


def test_a_file_at_a_url_with_another_hash(at_url):
    _, server = at_url
    served = next(iter(server.files.values()))
    served.data = served.data[:-1] + b"x"
    with pytest.raises(DownloadError, match="SHA-256"):
        taxonet.load(URL)
    assert files_of(cache_folder()) == []


def test_a_hub_that_sends_something_else(server, published):
    _, data = published
    server.add_hub(REPOSITORY, "model.safetensors", data[:-1] + b"x", tag=hashlib.sha256(data).hexdigest())
    with pytest.raises(DownloadError) as caught:
        taxonet.pull(HUB)
    assert hashlib.sha256(data).hexdigest() in str(caught.value)
    assert hashlib.sha256(data[:-1] + b"x").hexdigest() in str(caught.value)
    assert "model.safetensors" not in files_of(os.environ["HF_HOME"])
    assert not any(len(name) == 64 for name in files_of(os.environ["HF_HOME"]))
    assert files_of(cache_folder()) == []


def test_a_broken_blob_in_the_hub_s_cache_is_removed(hub):
    taxonet.pull(HUB)
    shutil.rmtree(cache_folder())
    blob = next(path for path in Path(os.environ["HF_HOME"]).rglob("*") if len(path.name) == 64)
    blob.write_bytes(blob.read_bytes()[:1000])
    with pytest.raises(DownloadError, match="were removed"):
        taxonet.pull(HUB)
    assert taxonet.pull(HUB).new


def test_the_hub_breaks_off_and_the_rest_is_asked_for(hub, published, monkeypatch):
    _, server = hub
    monkeypatch.setattr(huggingface_hub.file_download.time, "sleep", lambda _: None)
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 100_000)
    server.files[f"/{REPOSITORY}/resolve/main/model.safetensors"].dies_after = [1_000_000]
    taxonet.pull(HUB)
    assert [wanted for _, _, wanted in server.bodies()] == [None, "bytes=1000000-"]


def test_weights_that_are_not_those_of_the_entry(server, tmp_path):
    _, state = foreign_state("mobilenet_v2_035", "timm")
    server.add_hub(
        REPOSITORY, "model.safetensors", safetensors.torch.save({k: v.contiguous() for k, v in state.items()})
    )
    with pytest.raises(BundleError, match=rf"is not what the catalogue says of {HUB}: .* has the shape"):
        taxonet.pull(HUB)
    assert files_of(cache_folder()) == []


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (
            404,
            {"X-Error-Code": "RepoNotFound"},
            "the hub has no repository timm/mobilenetv2_050",
        ),
        (404, {"X-Error-Code": "EntryNotFound"}, r"has no file model.safetensors \(404"),
        (401, {}, r"\(401\): set HF_TOKEN to a token"),
        (403, {"X-Error-Code": "GatedRepo"}, "asks for an agreement: accept its terms on http"),
        (503, {}, "the server answers with the error 503, try again later"),
        (200, {}, "is no Hugging Face hub, check HF_ENDPOINT"),
    ],
)
def test_what_the_hub_refuses_is_one_sentence(server, status, headers, sentence):
    path = f"/{REPOSITORY}/resolve/main/model.safetensors"
    server.files[path] = Served(b"<html>", status=status, headers=headers)
    with pytest.raises(DownloadError, match=sentence) as caught:
        taxonet.pull(HUB)
    assert "\n" not in str(caught.value)
    assert files_of(cache_folder()) == []


def test_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXONET_CACHE", str(tmp_path))
    with pytest.raises(DownloadError, match=r"^cannot reach 127\.0\.0\.1:1 \("):  # the endpoint of all tests
        taxonet.pull(HUB)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (HUB, URL):
        with pytest.raises(DownloadError, match="not in the cache and HF_HUB_OFFLINE forbids the network"):
            taxonet.load(name)


def test_a_package_is_here_already():
    done = taxonet.pull("efficientnet_lite0")
    assert (done.name, done.new, done.licence) == ("efficientnet_lite0.tpu_in1k", False, "Apache-2.0")


def test_the_cache_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TAXONET_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "taxonet"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "taxonet"


def test_two_commands_at_once(hub):
    """As a user starts them: two processes, one bundle, both content; nothing but the file is asked for."""
    network, server = hub
    words = [sys.executable, "-m", "taxonet", "pull", HUB, "--json"]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    paths = {json.loads(out)["path"] for out, _ in outputs}
    assert len(paths) == 1
    assert answers(open_model(paths.pop())[1]).equal(answers(network))
    assert files_of(cache_folder()) == [bundle_path(find_entry(HUB)).name]
    assert {path for _, path, _ in server.asked} <= set(server.files)
    assert len(server.bodies()) == 1


def test_the_command(hub, capsys):
    assert main(["pull", HUB]) == 0
    captured = capsys.readouterr()
    assert "licence        unknown" in captured.out
    assert "accuracy       not stated in the catalogue" in captured.out
    assert f"taxonet predict PHOTO -m {HUB}" in captured.out
    assert str(bundle_path(find_entry(HUB))) in captured.out
    assert captured.err.startswith(f"{HUB}: http://127.0.0.1")
    assert main(["pull", HUB, "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["new"], captured.err) == (False, "")
    assert main(["pull"]) == 2
    assert "needs the name of the weights" in capsys.readouterr().err


def test_the_list(hub, capsys):
    taxonet.pull(HUB)
    assert main(["pull", "--list", "mobilenetv2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["name"]: row["here"] for row in found}[HUB] is True
    assert {row["variant"] for row in found} == {"mobilenet_v2", "mobilenet_v2_050", "mobilenet_v2_140"}
    assert main(["pull", "--list", "resnet50*"]) == 0
    assert "resnet50.IMAGENET1K_V2" in capsys.readouterr().out
    assert main(["pull", "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(catalogue.entries()) + 1
    assert main(["pull", "--list", "resnet51"]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_a_bundle_carries_the_licence_of_its_weights():
    info = find_entry("resnet18.fb_swsl_ig1b_ft_in1k").info()
    assert info.licence == "CC-BY-NC-4.0"
    assert find_entry("resnet18.a1_in1k").info().licence is None


def test_imported_by_hand_the_catalogue_is_asked_too(at_url, tmp_path):
    _, server = at_url
    (served,) = server.files.values()
    (tmp_path / "copy.pth").write_bytes(served.data)
    done = taxonet.import_weights(tmp_path / "copy.pth", "shufflenet_v2_x0_5", tmp_path / "out.safetensors")
    assert done.preprocessing_from == done.options_from == f"the catalogue's for {URL}"
    assert read_info(done.bundle).provenance["weights"] == URL
    with pytest.raises(UsageError, match=rf"is {URL}, weights of shufflenet_v2_x0_5 and not of shufflenet_v2_x1_0"):
        taxonet.import_weights(tmp_path / "copy.pth", "shufflenet_v2_x1_0", tmp_path / "no.safetensors")


def test_a_cache_that_cannot_be_written_is_one_sentence(at_url, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAXONET_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be written .* set TAXONET_CACHE to another folder"):
        taxonet.pull(URL)


def test_an_endpoint_that_is_no_address_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(UsageError, match="HF_ENDPOINT is 'nonsense', it must begin with http"):
        taxonet.pull("densenet121.tv_in1k")
