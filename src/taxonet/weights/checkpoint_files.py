"""Weights files of other libraries, read without ever running what is inside.

A `.pth` file is a pickle, and a pickle is a program. It is read by `torch.load(weights_only=True)` alone,
which makes tensors, containers and numbers and nothing else; a file that asks for more is refused, and there
is no option to read it all the same.
"""

import hashlib
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxonet.errors import BundleError
from taxonet.weights.bundle import AnyPath, read_tensors, reading
from taxonet.weights.strict_json import short

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# Where training scripts keep the weights among other things. The moving average comes first: where a file has
# both, the published accuracy is that of the average.
_WRAPPERS = ("model_ema", "state_dict_ema", "state_dict", "model_state_dict", "model", "module", "net")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel and torch.compile
_AVERAGE_COUNTER = "n_averaged"  # torch.optim.swa_utils.AveragedModel
_METADATA = (
    "args",
    "cfg",
    "config",
    "hyper_parameters",
    "lr_scheduler",
    "meta",
    "optimizer",
    "scaler",
    "scheduler",
)


def read_checkpoint(path: AnyPath) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a weights file to the CPU, by their names, in the order of the file.

    Reads safetensors files (bundles too) and PyTorch checkpoints of plain data. Wrappers such as `state_dict`
    and the prefix `module.` are taken off. Raises BundleError for everything else, above all for a pickle
    that asks for more than tensors: it could run code, and is never read any other way.
    """
    if Path(path).suffix.lower() != ".safetensors" and _is_pickle(path):
        with reading(path) as handle:
            tensors = _tensors_of(_unwrapped(_load_pickle(handle)))
    else:
        tensors = read_tensors(path)
    if not tensors:
        raise BundleError(f"cannot read '{path}': it holds no tensors")
    return _without_prefixes(tensors)


def sha256_of(path: AnyPath) -> str:
    """The SHA-256 of a file in hexadecimal; raises BundleError when it cannot be read."""
    with reading(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _is_pickle(path: AnyPath) -> bool:
    with reading(path) as handle:
        head = handle.read(9)
    is_safetensors = head[4:] == b"\0\0\0\0{"  # a header of 640 bytes begins like a pickle of protocol 2
    return not is_safetensors and re.match(rb"PK\x03\x04|\x80[\x01-\x05]", head) is not None


def _load_pickle(handle: BufferedReader) -> Any:
    import torch

    handle.seek(0)
    if handle.read(2) == b"PK":
        _check_zip(handle)
    handle.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice on pickle protocols
            return torch.load(handle, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # without the cause: torch's own words recommend reading the file unsafely
        raise BundleError(_refusal(str(error))) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise BundleError("it is a damaged PyTorch checkpoint, or none") from error


def _check_zip(handle: BufferedReader) -> None:
    try:
        files = zipfile.ZipFile(handle).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise BundleError("it is a damaged or truncated PyTorch checkpoint (a broken zip archive)") from error
    names = [file.filename for file in files]
    if any(name.endswith("/constants.pkl") for name in names):
        raise BundleError("it is a TorchScript program, not weights, and is refused: it would run code")
    if not any(name.endswith("data.pkl") for name in names):
        raise BundleError("it is a zip archive, but not a PyTorch checkpoint")
    # torch stores uncompressed; a small file that unpacks to a huge one is an attack
    if sum(file.file_size for file in files) > os.fstat(handle.fileno()).st_size:
        raise BundleError("it is a compressed zip archive, which PyTorch checkpoints never are, and is refused")


def _refusal(reason: str) -> str:
    wanted = re.search(r"GLOBAL ([\w.]+)", reason)
    asks = f"asks for '{wanted[1][:80]}'" if wanted else "asks for more than tensors or is damaged"
    return (
        f"this pickle {asks}: it contains other objects than weights, which can run any code when they are "
        "read, and is refused; get the weights as a safetensors file or as a plain state_dict"
    )


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    for _ in range(len(_WRAPPERS)):  # a pickle can hold itself, so not without end
        if not isinstance(content, Mapping):
            break
        key = next((name for name in _WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if key is None:
            return content
        log.info("the weights are under '%s'; beside it: %s", key, _listed(content))
        content = content[key]
    raise BundleError(f"it holds {short(content)}, not tensors by their names")


def _tensors_of(content: Mapping[Any, Any]) -> dict[str, "torch.Tensor"]:
    import torch

    tensors: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            tensors[name] = _plain_tensor(name, value)
        elif _is_metadata(name, value):
            log.info("ignored %s: %s describes the training and is no weight", short(name), short(value))
        else:
            raise BundleError(f"beside tensors it holds {short(name)}, {short(value)}, which is no weight")
    if not tensors:
        raise BundleError(f"it holds no tensors, only {_listed(content) or 'nothing'}")
    return tensors


def _plain_tensor(name: str, value: "torch.Tensor") -> "torch.Tensor":
    import torch

    if value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise BundleError(f"the tensor {short(name)} is not a dense tensor with values")
    # a stride of 0 lets a few bytes pose as gigabytes
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise BundleError(f"the tensor {short(name)} claims more values than the file holds")
    return value.detach()


def _is_metadata(name: object, value: object) -> bool:
    """A setting or count of a training script; a name with a dot belongs to a layer and is never ignored."""
    if not isinstance(name, str) or "." in name:
        return False
    return name in _METADATA or value is None or isinstance(value, (bool, int, float, str))


def _without_prefixes(tensors: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    names = [name for name in tensors if name != _AVERAGE_COUNTER]
    for prefix in _PREFIXES:
        if names and all(len(name) > len(prefix) and name.startswith(prefix) for name in names):
            return _without_prefixes({name.removeprefix(prefix): tensors[name] for name in names})
    return tensors


def _listed(content: Mapping[Any, Any]) -> str:
    shown = ", ".join(short(name) for name in list(content)[:5])
    return f"{shown} and {len(content) - 5} more" if len(content) > 5 else shown
