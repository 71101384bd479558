"""The catalogue of pretrained weights: what it lists is what is installed, and nothing else is taken for it."""

import importlib
import shutil
import sys
from dataclasses import replace

import pytest

from taxonet.errors import BundleError, UsageError
from taxonet.images import Preprocessing
from taxonet.networks.registry import find
from taxonet.weights.catalogue import entries, find_entry
from taxonet.weights.checkpoint_files import sha256_of

ENTRIES = entries()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_entry_is_whole(entry):
    assert find(entry.variant).name == entry.variant
    assert entry.name.startswith(f"{entry.variant}.")
    assert entry.path.is_file()
    assert sha256_of(entry.path) == entry.sha256
    info = entry.info()
    assert info.num_classes == find(entry.variant).num_classes == 1000
    assert Preprocessing.parse(info.preprocessing).channels == 3
    assert info.licence == "Apache-2.0"
    assert info.provenance == {"weights": entry.name, "package": entry.package, "sha256": entry.sha256}


def test_names_are_unique_and_found():
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert find_entry(entry.name) is entry
        assert find_entry(entry.variant).variant == entry.variant
    assert find_entry("densenet121") is None


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
