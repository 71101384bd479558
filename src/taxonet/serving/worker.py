"""A worker: a process with its share of the cores' threads that decodes pictures and runs the models on them.

It is told what to open and what to answer by messages on its stdin, and answers on its stdout (`messages.py`). Pictures
of one model that wait together share a batch; while a batch is at work on one core the next is formed by whoever comes.
When the server is gone, stdin ends, and so does the worker.
"""

import io
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from taxonet.errors import ImageError, TaxonetError
from taxonet.serving import messages
from taxonet.serving.log import keep_descriptors, say


@dataclass
class Item:
    """A picture that waits for its answer."""

    head: dict[str, Any]
    body: bytes
    arrived: float


@dataclass
class Model:
    """An open model with the pictures that wait for it."""

    classifier: Any
    batch: int
    wait: float
    slots: int  # calls of the engine that are useful at the same time
    network: Any = None  # the same as torch runs it, opened for the first explanation
    busy: int = 0
    waiting: deque[Item] = field(default_factory=deque)

    def due(self, now: float) -> float | None:
        """Seconds until its next batch should begin, None where nothing waits or all its slots are taken."""
        if not self.waiting or self.busy >= self.slots:
            return None
        return 0.0 if len(self.waiting) >= self.batch else self.waiting[0].arrived + self.wait - now


class Worker:
    """Takes messages until stdin ends."""

    def __init__(self, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._models: dict[str, Model] = {}
        self._changed = threading.Condition()  # of the models and what waits for them
        self._sending = threading.Lock()
        self._openings: queue.SimpleQueue[Item] = queue.SimpleQueue()  # one after the other
        self._slow: queue.SimpleQueue[Item] = queue.SimpleQueue()  # heat maps and drawings, one after the other
        self._cancelled: set[int] = set()  # slow work that nobody waits for any more
        self._decoders: ThreadPoolExecutor | None = None

    def run(self) -> None:
        """Answer until the server is gone."""
        from taxonet.machine import thread_count

        self.threads = thread_count()
        for work in [self._answer_batches] * self.threads:
            threading.Thread(target=work, daemon=True).start()
        for waiting in (self._openings, self._slow):
            threading.Thread(target=self._do_slow_work, args=(waiting,), daemon=True).start()
        while message := messages.read(self._incoming):
            head, body = message
            item = Item(head, body, time.monotonic())
            if head["kind"] in ("picture", "pixels"):
                self._enqueue(item)
            elif head["kind"] == "close":
                with self._changed:
                    self._models.pop(head["model"], None)
            elif head["kind"] == "cancel":
                self._cancelled.add(head["id"])
            else:
                (self._openings if head["kind"] == "open" else self._slow).put(item)

    def _enqueue(self, item: Item) -> None:
        with self._changed:
            self._models[item.head["model"]].waiting.append(item)
            self._changed.notify()

    def _send(self, head: messages.Head, body: bytes = b"") -> None:
        packed = messages.pack(head, body)
        with self._sending:
            self._outgoing.write(packed)
            self._outgoing.write(body)
            self._outgoing.flush()

    # ---- batches

    def _answer_batches(self) -> None:
        while True:
            model, items = self._next_batch()
            try:
                self._answer(model, items)
            except Exception as error:  # the pictures of this batch are answered, whatever it is
                self._fail(items, error)
            finally:
                with self._changed:
                    model.busy -= 1
                    self._changed.notify()

    def _next_batch(self) -> tuple[Model, list[Item]]:
        """Wait for a model whose batch is due, and take it."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [(seconds, model) for model in self._models.values() if (seconds := model.due(now)) is not None]
                ready = [model for seconds, model in due if seconds <= 0]
                if ready:
                    model = min(ready, key=lambda one: one.waiting[0].arrived)
                    model.busy += 1
                    items = [model.waiting.popleft() for _ in range(min(model.batch, len(model.waiting)))]
                    if model.waiting:
                        self._changed.notify()  # another thread may go on with what is left
                    return model, items
                self._changed.wait(min((seconds for seconds, _ in due), default=None))

    def _answer(self, model: Model, items: Sequence[Item]) -> None:
        import numpy as np

        from taxonet.images.statistics import features

        started = time.monotonic()
        found = self._prepared(model, items)
        good = [(item, pixels) for item, (pixels, _) in zip(items, found, strict=True) if not isinstance(pixels, str)]
        scores: dict[int, Any] = {}
        begun = time.monotonic()
        if good:
            pixels = np.concatenate([pixels for _, pixels in good])
            logits = np.concatenate(
                [model.classifier.run(pixels[i : i + model.batch]) for i in range(0, len(pixels), model.batch)]
            )
            ends = np.cumsum([len(pixels) for _, pixels in good])[:-1]
            scores = {id(item): part for (item, _), part in zip(good, np.split(logits, ends), strict=True)}
        network = (time.monotonic() - begun) / max(1, len(good))
        for item, (pixels, seconds) in zip(items, found, strict=True):
            timing = [started - item.arrived, seconds, network if id(item) in scores else 0.0]
            reply = {"kind": "answer", "id": item.head["id"], "timing": timing, "batch": len(items)}
            if isinstance(pixels, str):
                self._send(reply | {"error": pixels})
            elif item.head["kind"] == "pixels" or item.head["full"]:
                probabilities = model.classifier.calibrated(scores[id(item)])
                known = {"shape": probabilities.shape, "features": features(pixels[0])}
                self._send(reply | known, probabilities.astype("<f4").tobytes())
            else:
                reply["features"] = features(pixels[0])
                self._send_prediction(reply, model, item, pixels, scores[id(item)])

    def _prepared(self, model: Model, items: Sequence[Item]) -> list[tuple[Any, float]]:
        """The pixels (rows, H, W, C) of each item, or the reason why it has none, and the seconds that took."""
        if len(items) > 1 and model.slots == 1 < self.threads:  # nobody else uses the other cores
            self._decoders = self._decoders or ThreadPoolExecutor(self.threads)
            return list(self._decoders.map(lambda item: _pixels(model.classifier, item), items))
        return [_pixels(model.classifier, item) for item in items]

    def _send_prediction(self, reply: dict[str, Any], model: Model, item: Item, pixels: Any, logits: Any) -> None:
        head = item.head
        prediction = model.classifier.answer(
            head["path"], model.classifier.calibrated(logits)[0], head["top"], head["threshold"]
        )
        body = _as_png(pixels[0]) if head["preview"] else b""
        self._send(reply | {"answer": prediction.as_dict()}, body)

    def _fail(self, items: Sequence[Item], error: Exception) -> None:
        """A model that fails on pictures that could be read: its own error, told as one."""
        told = str(error) if isinstance(error, TaxonetError) else f"the model failed ({type(error).__name__})"
        say(f"worker: {type(error).__name__}: {error}")
        for item in items:
            self._send({"kind": "answer", "id": item.head["id"], "failed": told})

    # ---- slow work

    def _do_slow_work(self, waiting: "queue.SimpleQueue[Item]") -> None:
        while item := waiting.get():
            head = item.head
            try:
                if head["id"] in self._cancelled:
                    continue
                if head["kind"] == "open":
                    self._send({"kind": "opened", "id": head["id"], **self._open(head)})
                elif head["kind"] == "draw":
                    self._send({"kind": "answer", "id": head["id"]}, _drawing(head["network"]))
                else:
                    self._send({"kind": "answer", "id": head["id"]}, self._explain(item))
            except ImageError as error:
                self._send({"kind": "answer", "id": head["id"], "error": str(error)})
            except TaxonetError as error:
                self._send({"kind": "answer", "id": head["id"], "refused": str(error), "status": error.exit_status})
            except Exception as error:
                self._fail([item], error)
            finally:
                self._cancelled.discard(head["id"])

    def _open(self, head: dict[str, Any]) -> dict[str, Any]:
        """Open a model and let it answer a drawn picture once, so that the first request finds it compiled."""
        import numpy as np

        from taxonet.images import Limits
        from taxonet.inference import load

        classifier = load(head["path"], head["engine"])
        classifier.limits = Limits(max_bytes=head["max_bytes"], max_pixels=head["max_pixels"])
        height, width = classifier.preprocessing.output_size
        for count in (1, 2):  # an engine may have two programs, for one picture and for several
            classifier.run(np.zeros((count, height, width, classifier.preprocessing.channels), np.uint8))
        model = Model(classifier, head["batch"], head["wait"], max(1, min(classifier.engine.streams, self.threads)))
        with self._changed:
            self._models[head["model"]] = model
        return {"info": classifier.info.to_json(), "engine": classifier.engine.name}

    def _explain(self, item: Item) -> bytes:
        """The heat map's PNG."""
        from taxonet.evaluation.explanation import Explainer, open_network
        from taxonet.evaluation.overlay import blend

        head, model = item.head, self._models[item.head["model"]]
        if model.network is None:
            model.network = open_network(head["path"])
            model.network.limits = model.classifier.limits
        classifier = model.network
        explained = Explainer(classifier, method=head["method"], target=head["target"], layer=head["layer"])(item.body)
        return _as_png(blend(explained))


def _pixels(classifier: Any, item: Item) -> tuple[Any, float]:
    import numpy as np

    started = time.monotonic()
    try:
        if item.head["kind"] == "pixels":
            pixels: Any = np.frombuffer(item.body, np.uint8).reshape(item.head["shape"])
        else:
            pixels = classifier.preprocessing.pixels(item.body, classifier.limits)[None]
    except ImageError as error:
        pixels = str(error)
    return pixels, time.monotonic() - started


def _drawing(network: str) -> bytes:
    from taxonet.information import draw

    return draw(network).encode()


def _as_png(pixels: Any) -> bytes:
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(picture, "PNG", compress_level=1)
    return picture.getvalue()


def main() -> None:
    """The process: `python -m taxonet.serving.worker`."""
    keep_descriptors()
    incoming = os.fdopen(os.dup(0), "rb", buffering=2**20)
    outgoing = os.fdopen(os.dup(1), "wb", buffering=2**16)
    os.dup2(2, 1)  # what a library prints goes to the log and not among the messages
    Worker(incoming, outgoing).run()
    os._exit(0)  # threads may be at work for nobody


if __name__ == "__main__":
    main()
