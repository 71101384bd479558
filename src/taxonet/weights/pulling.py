"""`pull`: weights of the catalogue become a bundle in the cache, which every other verb opens."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from taxonet.console import Listener, Silent
from taxonet.errors import BundleError, DataError, TaxonetError
from taxonet.weights.catalogue import Entry, get_entry
from taxonet.weights.checkpoint_files import sha256_of
from taxonet.weights.download import alone
from taxonet.weights.hub import CACHE, bundle_path, cache_folder, fetch


@dataclass(frozen=True)
class Pulled:
    """Weights that are here: the file to use, and what their source says of them."""

    name: str
    variant: str
    path: Path
    source: str
    sha256: str
    licence: str
    accuracy: str
    published: dict[str, Any]
    preprocessing: str
    options: dict[str, Any]
    new: bool

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self) | {"path": str(self.path)}


def pull(name: str, *, listener: Listener | None = None) -> Pulled:
    """Bring pretrained weights into the cache, from the hub or a URL, and make a bundle of them.

    Args:
        name: an entry of the catalogue (`densenet121.tv_in1k`), also as timm, the hub and torchvision write it
            (`timm/densenet121.tv_in1k`, `densenet121.IMAGENET1K_V1`), or a network for its default weights.
        listener: who follows the progress.

    Raises:
        UsageError: the catalogue has no such weights, or their package is not installed.
        DownloadError: they cannot be brought, or their hash is wrong.
    """
    entry = get_entry(name)
    path, new = (fetch(entry), False) if entry.package else _bundle(entry, listener or Silent())
    return Pulled(
        name=entry.name,
        variant=entry.variant,
        path=path,
        source=entry.source,
        sha256=sha256_of(path),
        licence=entry.licence,
        accuracy=entry.accuracy(),
        published=dict(entry.published),
        preprocessing=entry.preprocessing,
        options=dict(entry.options),
        new=new,
    )


def pulled_bundle(entry: Entry, listener: Listener | None = None) -> Path:
    """The bundle of an entry that is no package's, brought where it is not in the cache."""
    return _bundle(entry, listener or Silent())[0]


def _bundle(entry: Entry, listener: Listener) -> tuple[Path, bool]:
    """The bundle, and whether it had to be made."""
    target = bundle_path(entry)
    if target.is_file():
        return target, False
    try:
        file = fetch(entry, listener)
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target, listener):
            if not target.is_file():
                _convert(entry, file, target)
    except OSError as error:  # of the network none comes here
        raise DataError(
            f"the cache {cache_folder()} cannot be written ({error.strerror or error}); set {CACHE} to another folder"
        ) from error
    return target, True


def _convert(entry: Entry, file: Path, target: Path) -> None:
    from taxonet.networks.registry import create_model, find
    from taxonet.weights.checkpoint_files import read_checkpoint
    from taxonet.weights.conversion import convert
    from taxonet.weights.networks import save_network

    info = entry.info()
    try:
        network = create_model(entry.variant, **info.create_options)
        _, state = convert(read_checkpoint(file), network, find(entry.variant).family, [entry.layout])
        network.load_state_dict(state, strict=True)
    except (TaxonetError, RuntimeError) as error:
        raise BundleError(f"{file} is not what the catalogue says of {entry.name}: {error}") from error
    save_network(target, replace(info, provenance={**info.provenance, "sha256": sha256_of(file)}), network)
