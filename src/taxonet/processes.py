"""Several processes that do one piece of work, as `torchrun` starts them.

Every process holds a `World`: its rank, and the few ways in which the processes talk. Text and arrays travel as bytes,
never as pickles. What one process cannot do, all of them learn: they end with that process's sentence, told once.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from taxonet.errors import TaxonetError, UsageError, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")
DEVICES = ("auto", "cpu", "cuda")
PATIENCE = timedelta(hours=2)  # for a process that lives but is slow; one that ends is noticed at once
_speaks: bool | None = None  # whether this process tells of an error; None until one has come


class PeerLostError(TaxonetError):
    """Another process of the work has ended before its time."""


@dataclass(frozen=True)
class World:
    """The processes of one piece of work and this one's place among them; alone by default.

    `node` numbers the machines; `local_rank` and `local_size` count the processes of this one's machine. `on_gpu` says
    whether each computes on a GPU of its own.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0
    on_gpu: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def device(self) -> "torch.device":
        """Where this process computes: its own GPU or the CPU."""
        import torch

        return torch.device("cuda", self.local_rank) if self.on_gpu else torch.device("cpu")

    def bounds(self, count: int) -> tuple[int, int]:
        """The part of `count` things that is this process's: from … to; the parts differ by one at most."""
        small, more = divmod(count, self.size)
        start = self.rank * small + min(self.rank, more)
        return start, start + small + (self.rank < more)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sums of figures over all processes, in double precision, the same bits in each of them."""
        if self.size == 1:
            return list(values)
        import torch

        total = torch.tensor(list(values), dtype=torch.float64)
        self.add_up(total)
        return [float(value) for value in total]

    def any(self, flag: bool) -> bool:
        """Whether any process says yes."""
        return self.sums([float(flag)])[0] > 0

    def add_up(self, tensor: "Tensor") -> None:
        """Replace a tensor by its sum over all processes."""
        import torch.distributed as dist

        _talk(lambda: dist.all_reduce(tensor))

    def gather_tensors(self, tensor: "Tensor") -> "list[Tensor]":
        """The tensors of all processes, by rank; all have one shape."""
        import torch
        import torch.distributed as dist

        found = [torch.empty_like(tensor) for _ in range(self.size)]
        _talk(lambda: dist.all_gather(found, tensor))
        return found

    def broadcast(self, tensor: "Tensor") -> None:
        """Replace a tensor by the first process's."""
        import torch.distributed as dist

        _talk(lambda: dist.broadcast(tensor, 0))

    def gather(self, data: bytes) -> list[bytes]:
        """The bytes of all processes, by rank."""
        if self.size == 1:
            return [data]
        import torch

        sizes = [int(size) for size in self.gather_tensors(torch.tensor([len(data)]))]
        padded = torch.zeros(max(*sizes, 1), dtype=torch.uint8)
        if data:
            padded[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        found = self.gather_tensors(padded)
        return [part[:size].numpy().tobytes() for part, size in zip(found, sizes, strict=True)]

    def agreed(self, work: Callable[[], T]) -> T:
        """Do `work` in every process; where it fails in one, all raise the error of the first that failed."""
        if self.size == 1:
            return work()
        failure = b""
        try:
            result = work()
        except TaxonetError as error:
            failure = json.dumps([type(error).__name__, str(error)]).encode()
        if not self.any(bool(failure)):
            return result
        kind, sentence = json.loads(next(text for text in self.gather(failure) if text))
        raise _error_of(kind)(sentence)

    def from_first(self, work: Callable[[], bytes]) -> bytes:
        """Do `work` in the first process alone; every process gets its answer, or its error."""
        data = self.agreed(lambda: work() if self.first else b"")
        if self.size == 1:
            return data
        import torch

        size = torch.tensor([len(data)])
        self.broadcast(size)
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        buffer = buffer if self.first else torch.empty(int(size), dtype=torch.uint8)
        if int(size):
            self.broadcast(buffer)
        return buffer.numpy().tobytes()


def launched() -> bool:
    """Whether torchrun (or something that sets the same variables) started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"))


def launch_name() -> str | None:
    """What the processes of one torchrun share over its restarts, and other launches do not; None without torchrun.

    torchrun's own id where it has one; else the address and the launcher's process, which stays while it restarts.
    """
    if not launched():
        return None
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return name if name != "none" else f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}:{os.getppid()}"


def restarted() -> bool:
    """Whether torchrun has started the processes again after one of them had failed."""
    return launched() and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def speaks() -> bool:
    """Whether this process is the one that tells of an error, so that a sentence comes once."""
    return os.environ.get("RANK", "0") == "0" if _speaks is None else _speaks


def leave(status: int) -> NoReturn:
    """End this process with an exit status.

    One of several goes without Python's usual end: what torch's threads still hold can abort it there, and torchrun
    would take work that is done for a failure.
    """
    if launched() and int(os.environ["WORLD_SIZE"]) > 1:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


@contextmanager
def join(device: str = "cpu") -> Iterator[World]:
    """The processes that torchrun started, or this one alone; what another has joined already is used as it is.

    On a CPU the processes talk by gloo; on GPUs gradients go by NCCL and everything else by gloo. `device` is "cpu",
    "cuda", or "auto" for a GPU where torch finds one; a GPU computes deterministically as far as cuDNN can.

    Raises:
        UsageError: there is no such device, or there are fewer GPUs than processes of this machine.
    """
    module = sys.modules.get("torch.distributed")
    if module is not None and module.is_available() and module.is_initialized():
        yield _on_device(_world(module.get_rank(), module.get_world_size()), device)
        return
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield _on_device(World(), device)
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    world = _on_device(_world(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])), device)
    backend = "cpu:gloo,cuda:nccl" if world.on_gpu else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = PrefixStore(f"taxonet/{attempt}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield world
    except BaseException as error:
        _claim_the_word(store, error)
        raise
    finally:
        dist.destroy_process_group()


def _on_device(world: World, asked: str) -> World:
    """The process with the device that is asked for, made ready."""
    if asked not in DEVICES:
        raise UsageError(f"device is '{asked}', it must be one of {', '.join(DEVICES)}{nearest(asked, DEVICES)}")
    if asked == "cpu":
        return world
    import torch

    if not torch.cuda.is_available():
        if asked == "cuda":
            raise UsageError("device is 'cuda', and torch finds no GPU here; leave it out, or take cpu")
        return world
    gpus = torch.cuda.device_count()
    if world.local_size > gpus:
        raise UsageError(
            f"{world.local_size} processes of this machine need a GPU each, and torch finds {gpus}; "
            "start fewer, or take the device cpu"
        )
    world = replace(world, on_gpu=True)
    torch.cuda.set_device(world.device)
    torch.backends.cudnn.deterministic = True  # a run that was stopped must go on to the same weights
    return world


def _world(rank: int, size: int) -> World:
    number = {name: int(os.environ.get(name, default)) for name, default in _PLACES.items()}
    return World(rank, size, number["LOCAL_RANK"], number["LOCAL_WORLD_SIZE"], number["GROUP_RANK"])


_PLACES = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "0"}


def _claim_the_word(store: Any, error: BaseException) -> None:
    """The first process with an error tells it; the others fail because of it and stay silent."""
    global _speaks  # noqa: PLW0603 - a process has one voice
    try:
        _speaks = store.add("word", 1) == 1
    except RuntimeError:  # the store has gone with the first process: it has told what all share, or it was lost
        _speaks = isinstance(error, PeerLostError)


def _talk(exchange: Callable[[], Any]) -> None:
    try:
        exchange()
    except RuntimeError as error:
        raise PeerLostError(f"another process has ended before its time ({str(error).splitlines()[0]})") from error


def _error_of(kind: str) -> Callable[[str], TaxonetError]:
    found = getattr(sys.modules[TaxonetError.__module__], kind, None)
    known = isinstance(found, type) and issubclass(found, TaxonetError)
    return found if known else TaxonetError  # type: ignore[return-value]
