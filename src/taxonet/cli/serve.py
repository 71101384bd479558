"""`taxonet serve`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from taxonet.cli.numbers import Whole
from taxonet.errors import UsageError

MEBI = 2**20


def serve(
    models: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    host: str = "127.0.0.1",
    port: Whole = 8000,
    workers: Whole = 0,
    engine: str = "auto",
    max_batch: Annotated[list[str] | None, Parameter(negative="")] = None,
    max_wait: Annotated[list[str] | None, Parameter(negative="")] = None,
    queue: Whole = 512,
    max_files: Whole = 256,
    max_body: Whole = 32,
    max_memory: Whole = 512,
    max_pixels: Whole = 50,
    max_connections: Whole = 1024,
    timeout: float = 30.0,
    drain: float = 1.0,
    tokens: Path | None = None,
    cors: Annotated[list[str] | None, Parameter(negative="")] = None,
) -> int:
    """Serve models over HTTP, with a page at the address itself, until Ctrl-C or SIGTERM.

    The API is described at /openapi.json, figures for Prometheus are at /metrics. A model whose file changes is
    replaced without dropping a request. Only this machine can reach the server unless --host says otherwise.

    Parameters
    ----------
    models
        Bundles, exports (X.xml, X.onnx), or pretrained weights as `taxonet pull` names them. A model is called by its
        file's stem or its catalogue name; NAME=PATH gives another name.
    host
        The address to listen on; 0.0.0.0 is every one of this machine.
    port
        The port; 0 takes one that is free and says which.
    workers
        Processes that decode and run networks; they share out the cores. 0 takes two, so that one answers while
        another starts again, or a quarter of the cores where that is more; on a single core one.
    engine
        What runs bundles, as for `taxonet predict`.
    max_batch
        How many waiting pictures share a batch, at most: N for every model, NAME=N for one. By default 4, beyond which
        a core gains nothing.
    max_wait
        Milliseconds that a picture waits for others to share a batch with: MS, or NAME=MS. By default 0: batches form
        by themselves while the cores are busy, and waiting on an idle core only makes answers late.
    queue
        How many pictures may wait for each model; then 503 with Retry-After.
    max_files
        Pictures of a request.
    max_body
        MiB of a request.
    max_memory
        MiB of all requests at work.
    max_pixels
        Millions of pixels of a picture, looked at before it is decoded.
    max_connections
        Open connections.
    timeout
        Seconds from a request's head to its answer.
    drain
        Seconds that go on being served after SIGTERM, with /readyz at 503, so that a balancer can take notice.
    tokens
        A file of bearer tokens, one a line; /v1, /v2 and /metrics then need one of them. It is read once.
    cors
        Origins, such as https://example.org, whose pages may use the API from a browser.
    """
    from taxonet.serving import Tokens
    from taxonet.serving import serve as serve_models

    batch, batch_of = _split(max_batch, "--max-batch", int)
    wait, wait_of = _split(max_wait, "--max-wait", float)
    serve_models(
        models,
        host=host,
        port=port,
        workers=workers,
        engine=engine,
        batch=4 if batch is None else batch,
        batch_of=batch_of,
        wait=0.0 if wait is None else wait / 1000,
        wait_of={name: value / 1000 for name, value in wait_of.items()},
        queue=queue,
        max_files=max_files,
        max_body=max_body * MEBI,
        max_memory=max_memory * MEBI,
        max_pixels=max_pixels * 1_000_000,
        max_connections=max_connections,
        timeout=timeout,
        head_timeout=min(10.0, timeout),
        drain=drain,
        tokens=Tokens.of_file(tokens) if tokens else None,
        cors=tuple(cors or ()),
    )
    return 0


def _split(words: list[str] | None, option: str, kind: type) -> tuple[float | int | None, dict[str, float | int]]:
    """`8` and `flowers=16` as the value for all and those of single models."""
    for_all, single = None, {}
    for word in words or ():
        name, given, text = word.rpartition("=")
        try:
            value = kind(text)
            if not 0 <= value < 10**6:  # nor is it NaN
                raise ValueError
        except ValueError:
            raise UsageError(f"{option} is '{word}', it must be a number, or NAME=NUMBER") from None
        if given:
            single[name] = value
        else:
            for_all = value
    return for_all, single
