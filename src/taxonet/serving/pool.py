"""The workers and what waits for them: which worker answers which picture, and what happens when one dies.

A picture waits here, in a bounded queue of its model, until a worker has room for it. What a dying worker had is given
to another one, so a request only takes longer; a picture that two workers died of is answered with that.
"""

import asyncio
import functools
import itertools
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from taxonet.errors import TaxonetError, UsageError
from taxonet.machine import cpu_count
from taxonet.serving import messages
from taxonet.serving.settings import Settings

TRIES = 2  # workers that may die of a picture
PATIENCE = 5.0  # seconds that a worker gets to end
PAUSE, LONGEST_PAUSE = 0.1, 10.0  # before a worker that died starts again, and while it dies again and again
SLOW = 8  # heat maps and drawings that a worker may have
STAYED = 10.0  # seconds after which a worker that died had been well


class QueueFullError(TaxonetError):
    """More pictures wait than may; `seconds` says when to come again."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class WorkerError(TaxonetError):
    """A model failed, or its workers died."""


class WorkerDiedError(WorkerError):
    """The worker ended before it had answered."""


@dataclass(frozen=True)
class Reply:
    """What a worker said of one item."""

    head: dict[str, Any]
    body: bytes


@dataclass(eq=False)
class Task:
    """An item until it is answered."""

    head: dict[str, Any]
    body: bytes
    future: "asyncio.Future[Reply]"
    queued: float = field(default_factory=time.monotonic)
    deaths: int = 0

    @property
    def model(self) -> str:
        """The key of the opening that it is for."""
        return str(self.head["model"])

    @property
    def batched(self) -> bool:
        """Whether it waits in the queue of its model; slow work goes its own way."""
        return self.head["kind"] in ("picture", "pixels")


@dataclass(frozen=True)
class Opening:
    """What a worker needs to open a model."""

    key: str
    path: str
    engine: str
    batch: int
    wait: float


class _Worker:
    """One process as the server sees it."""

    def __init__(self, number: int, threads: int) -> None:
        self.number, self.threads = number, threads
        self.process: Process | None = None
        self.ready = False
        self.opened: set[str] = set()  # keys of models
        self.try_again = 0.0  # when a model that could not be opened is tried again
        self.at_work: dict[int, Task] = {}
        self.heard = time.monotonic()  # when it last answered, or last had nothing to do
        self.listener: asyncio.Task[None] | None = None

    @property
    def pictures(self) -> int:
        return sum(task.batched for task in self.at_work.values())

    def send(self, head: messages.Head, body: bytes = b"") -> None:
        """Write without waiting: what is under way is bounded by the room of a worker."""
        assert self.process is not None
        assert self.process.stdin is not None
        with suppress(ConnectionError, RuntimeError):  # it has died, which its reader finds out
            self.process.stdin.write(messages.pack(head, body))
            if body:
                self.process.stdin.write(body)


class Pool:
    """All workers; lives in one event loop."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self.settings, self._say = settings, say
        self.deaths = 0
        self._workers = [_Worker(number, threads) for number, threads in enumerate(settings.shares())]
        self._openings: dict[str, Opening] = {}
        self._waiting: dict[str, deque[Task]] = {}
        self._ids = itertools.count(1)
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = False
        self._seconds = 0.01  # that a picture takes, as a moving mean over the workers

    # ---- models

    async def prepare(self, opening: Opening) -> dict[str, Any]:
        """Open a model in a process of its own that has all cores and ends: what it says, `{"info", "engine"}`.

        The engine is chosen, and the network converted, once and not by each worker, and no worker keeps torch.
        """
        worker = _Worker(-1, cpu_count())
        await self._start(worker)
        try:
            return await self._opened(worker, opening)
        finally:
            await self._end(worker)

    async def open(self, opening: Opening) -> None:
        """Open a model in every worker that lives; those that start later open it, too."""
        self._openings[opening.key] = opening
        self._waiting.setdefault(opening.key, deque())
        work = (self._opened(worker, opening) for worker in self._workers if worker.ready)
        for failure in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(failure, BaseException) and not isinstance(failure, WorkerDiedError):
                await self.close(opening.key)
                raise failure  # a worker that died opens all models when it starts again

    async def close(self, key: str) -> None:
        """Forget a model when the last of its pictures is answered."""
        while self._waiting.get(key) or any(t.model == key for w in self._workers for t in w.at_work.values()):
            await asyncio.sleep(0.05)
        self._openings.pop(key, None)
        self._waiting.pop(key, None)
        for worker in self._workers:
            if key in worker.opened:
                worker.opened.discard(key)
                worker.send({"kind": "close", "model": key})

    async def _opened(self, worker: _Worker, opening: Opening) -> dict[str, Any]:
        head = {
            "kind": "open",
            "model": opening.key,
            "path": opening.path,
            "engine": opening.engine,
            "batch": opening.batch,
            "wait": opening.wait,
            "max_bytes": self.settings.max_body,
            "max_pixels": self.settings.max_pixels,
        }
        reply = await self._ask(worker, head)
        worker.opened.add(opening.key)
        return reply.head

    # ---- items

    def room(self, key: str) -> int:
        """How many more pictures of a model may wait."""
        return self.settings.queue - len(self._waiting[key])

    def waiting(self, key: str) -> int:
        """How many pictures of a model wait for a worker."""
        return len(self._waiting.get(key, ()))

    def at_work(self) -> int:
        """How many pictures the workers have."""
        return sum(worker.pictures for worker in self._workers)

    @property
    def workers_ready(self) -> int:
        """How many workers can answer."""
        return sum(worker.ready for worker in self._workers)

    def submit(self, heads: list[dict[str, Any]], bodies: list[bytes]) -> "list[asyncio.Future[Reply]]":
        """Queue the pictures of one request, all of them or none.

        Raises:
            QueueFullError: too many wait already.
        """
        key = heads[0]["model"]
        if len(heads) > self.room(key):
            seconds = max(1, round(self.waiting(key) * self._seconds / max(1, self.workers_ready)))
            raise QueueFullError(f"{self.waiting(key)} pictures wait already, come again in {seconds} s", seconds)
        loop = asyncio.get_running_loop()
        tasks = [Task(head, body, loop.create_future()) for head, body in zip(heads, bodies, strict=True)]
        for task in tasks:
            task.future.add_done_callback(functools.partial(self._drop_if_cancelled, task))
        self._waiting[key].extend(tasks)
        self._hand_out()
        return [task.future for task in tasks]

    async def ask_any(self, head: dict[str, Any], body: bytes = b"") -> Reply:
        """Ask for slow work, a heat map or a drawing: the worker with the least of it.

        Raises:
            QueueFullError: no worker is ready, or each has as much as it may.
            UsageError: it cannot be done.
        """
        for tries in range(TRIES):
            model = head["model"]
            able = [one for one in self._workers if one.ready and (not model or model in one.opened)]
            if not able:
                raise QueueFullError("no worker is ready, come again in 1 s", 1)
            worker = min(able, key=lambda one: len(one.at_work) - one.pictures)
            if len(worker.at_work) - worker.pictures >= SLOW:
                raise QueueFullError(f"{SLOW} heat maps and drawings wait already, come again in 2 s", 2)
            try:
                return await self._ask(worker, head, body)
            except WorkerDiedError:
                if tries + 1 == TRIES:
                    raise
        raise AssertionError

    async def _ask(self, worker: _Worker, head: dict[str, Any], body: bytes = b"") -> Reply:
        """Send one item to one worker and wait for its answer; raise what it refuses."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        task = Task(head | {"id": next(self._ids)}, body, future, deaths=TRIES)  # no other worker gets it
        worker.at_work[task.head["id"]] = task
        worker.send(task.head, body)
        try:
            reply = await future
        except asyncio.CancelledError:
            if worker.at_work.pop(task.head["id"], None):
                worker.send({"kind": "cancel", "id": task.head["id"]})
            raise
        if text := reply.head.get("refused"):
            raise UsageError(text) if reply.head["status"] == UsageError.exit_status else WorkerError(text)
        if text := reply.head.get("failed"):
            raise WorkerError(text)
        return reply

    def _hand_out(self) -> None:
        """Give waiting pictures to workers with room: the oldest first, the worker with the fewest first."""
        while any(self._hand_out_one(queue) for queue in self._by_age()):
            pass

    def _by_age(self) -> "list[deque[Task]]":
        return sorted((queue for queue in self._waiting.values() if queue), key=lambda queue: queue[0].queued)

    def _hand_out_one(self, queue: "deque[Task]") -> bool:
        """Give the first of a queue to a worker that has its model and room, if there is one."""
        task = queue[0]
        able = (one for one in self._workers if one.ready and task.model in one.opened)
        free = [worker for worker in able if worker.pictures < self._room_of(worker)]
        if not free:
            return False
        worker = min(free, key=lambda one: one.pictures)
        queue.popleft()
        if not worker.at_work:
            worker.heard = time.monotonic()
        identity = next(self._ids)
        worker.at_work[identity] = task
        worker.send(task.head | {"id": identity}, task.body)
        return True

    def _drop_if_cancelled(self, task: Task, future: "asyncio.Future[Reply]") -> None:
        """Where nobody waits for a picture any more, its bytes go, and its place in the queue."""
        if not future.cancelled():
            return
        task.body = b""
        with suppress(KeyError, ValueError):
            self._waiting[task.model].remove(task)

    def _room_of(self, worker: _Worker) -> int:
        """As many pictures as its cores work on, and as many again, so that it never waits for the server."""
        batch = max((opening.batch for opening in self._openings.values()), default=1)
        return 2 * batch * worker.threads

    # ---- processes

    async def start(self) -> None:
        """Start the workers; they open what is to be opened."""
        await asyncio.gather(*(self._start(worker) for worker in self._workers))
        for worker in self._workers:
            worker.ready = True
            self._keepers.append(asyncio.create_task(self._keep(worker)))
        self._keepers.append(asyncio.create_task(self._watch()))

    async def stop(self) -> None:
        """End the workers; what is not answered then never is."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(worker) for worker in self._workers))

    async def _start(self, worker: _Worker) -> None:
        worker.opened = set()
        worker.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "taxonet.serving.worker",
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is the server's: it ends its workers when all is answered
            env=os.environ | {"OMP_NUM_THREADS": str(worker.threads)},  # every library's threads, and our own
        )
        worker.listener = asyncio.create_task(self._listen(worker, worker.process))

    async def _listen(self, worker: _Worker, process: Process) -> None:
        """Take what a worker says until it ends; then its pictures are given to others."""
        assert process.stdout is not None
        while message := await messages.receive(process.stdout):
            head, body = message
            worker.heard = time.monotonic()
            task = worker.at_work.pop(head["id"], None)
            if task is None:
                continue
            if task.batched and "timing" in head:
                self._seconds += 0.05 * (sum(head["timing"][1:]) - self._seconds)
            if not task.future.done():
                task.future.set_result(Reply(head, body))
            self._hand_out()
        worker.ready = False
        left, worker.at_work = list(worker.at_work.values()), {}
        for task in sorted(left, key=lambda one: one.queued, reverse=True):
            self._take_back(task)
        self._hand_out()

    def _take_back(self, task: Task) -> None:
        task.deaths += 1
        if task.future.done():
            return
        if task.deaths < TRIES and task.batched:
            self._waiting[task.model].appendleft(task)
        else:
            task.future.set_exception(WorkerDiedError("the process that was at work on it ended"))

    async def _keep(self, worker: _Worker) -> None:
        """Start a worker again whenever it ends."""
        pause = PAUSE
        while True:
            assert worker.process is not None
            began = time.monotonic()
            status = await worker.process.wait()
            worker.ready = False
            if self._stopping:
                return
            if worker.listener is not None:
                await worker.listener  # its pictures are given to others before it starts again
            pause = PAUSE if time.monotonic() - began > STAYED else min(LONGEST_PAUSE, 2 * pause)
            self.deaths += 1
            self._say(f"worker {worker.number} ended with status {status}, it starts again in {pause:.1f} s")
            await asyncio.sleep(pause)
            while not await self._started(worker):
                pause = min(LONGEST_PAUSE, 2 * pause)
                await asyncio.sleep(pause)
            await self._open_missing(worker)
            if worker.listener is None or worker.listener.done():
                continue  # it has died already
            worker.ready = True
            self._say(f"worker {worker.number} is back")
            self._hand_out()

    async def _started(self, worker: _Worker) -> bool:
        try:
            await self._start(worker)
        except OSError as error:  # no memory or no descriptor is left, for now
            self._say(f"worker {worker.number} cannot start: {error.strerror or error}")
            return False
        return True

    async def _open_missing(self, worker: _Worker) -> None:
        """Open what a worker has not open; what cannot be opened is tried again later, the others answer meanwhile."""
        failed: set[str] = set()
        worker.try_again = float("inf")
        while missing := [one for key, one in self._openings.items() if key not in worker.opened | failed]:
            try:
                await self._opened(worker, missing[0])
            except WorkerDiedError:
                return  # its keeper starts it again
            except TaxonetError as error:
                failed.add(missing[0].key)
                self._say(f"worker {worker.number} cannot open {missing[0].path}: {error}")
        worker.try_again = time.monotonic() + LONGEST_PAUSE if failed else 0.0
        self._hand_out()

    async def _watch(self) -> None:
        """Kill a worker that stands still: none of its pictures is answered in twice the time of a request."""
        longest = 2 * self.settings.timeout
        while True:
            await asyncio.sleep(min(1.0, longest / 2))
            for worker in self._workers:
                missing = worker.ready and any(key not in worker.opened for key in self._openings)
                if missing and 0 < worker.try_again < time.monotonic():
                    await self._open_missing(worker)
                if worker.ready and worker.pictures and time.monotonic() - worker.heard > longest:
                    assert worker.process is not None
                    self._say(f"worker {worker.number} stands still, it is killed")
                    worker.heard = time.monotonic()
                    with suppress(ProcessLookupError):
                        worker.process.kill()

    @staticmethod
    async def _end(worker: _Worker) -> None:
        process = worker.process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()  # the sign to end
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
