"""The API: models, cards, predictions, heat maps, health and metrics, with an OpenAPI document that says what is so."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse

from taxonet._version import __version__
from taxonet.errors import TaxonetError, nearest
from taxonet.serving import schemas
from taxonet.serving.bodies import Upload, read_request
from taxonet.serving.cards import card_of, catalogue, network_names, sheet_of
from taxonet.serving.deployment import Deployment, NoModelError, Served
from taxonet.serving.guard import Guard
from taxonet.serving.metrics import STAGES, Metrics
from taxonet.serving.openapi import ASKING, MAX_TOP, OPTIONS, add_openapi, file_of_kind, pictures, problems
from taxonet.serving.pages import add_page
from taxonet.serving.pool import QueueFullError, Reply, WorkerError
from taxonet.serving.problems import MEDIA_TYPE, ProblemError, document
from taxonet.serving.settings import Settings
from taxonet.serving.v2 import add_v2

METHODS = "^(gradcam|occlusion|integrated_gradients)$"
Top = Annotated[int, Query(ge=1, le=MAX_TOP, description="How many classes an answer names.")]
Threshold = Annotated[
    float | None,
    Query(ge=0, le=1, description='The probability under which an answer is "none of these"; by default the model\'s.'),
]


def create_app(settings: Settings, deployment: Deployment, metrics: Metrics) -> Any:
    """The application around models that are open, or will be: an ASGI app for any server."""
    app = FastAPI(
        title="Taxonet",
        version=__version__,
        description="Image classification by the models that this server was started with.",
        docs_url=None,  # they bring scripts from elsewhere
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # the address to go to would be made of the client's Host
    )
    _add_errors(app)
    _add_health(app, deployment, metrics)
    _add_models(app, deployment)
    _add_predict(app, settings, deployment, metrics)
    add_v2(app, settings, deployment, metrics)
    add_openapi(app, settings)
    add_page(app)
    guard = Guard(app, settings, deployment, metrics)
    if not settings.cors:
        return guard
    return CORSMiddleware(  # around the guard, so that a page of a named origin can read refusals, too
        guard,
        allow_origins=list(settings.cors),
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["server-timing", "retry-after"],
    )


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
        return Response(document(status, detail), status, dict(headers or {}), MEDIA_TYPE)

    @app.exception_handler(ProblemError)
    async def problem(_: Request, error: ProblemError) -> Response:
        return answer(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def refused(request: Request, error: HTTPException) -> Response:
        known = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not for this address"}
        return answer(error.status_code, known.get(error.status_code, str(error.detail)), error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong_value(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(422, f"{first['loc'][-1]} is {str(first.get('input'))[:100]!r}: {first['msg']}")

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return answer(500, "the server failed on this request, its log says how")

    @app.exception_handler(TaxonetError)
    async def cannot(_: Request, error: TaxonetError) -> Response:
        status, headers = status_of(error)
        return answer(status, str(error), headers)


def status_of(error: TaxonetError) -> tuple[int, dict[str, str]]:
    """The HTTP status of an error of ours, and the headers that go with it."""
    if isinstance(error, QueueFullError):
        return 503, {"retry-after": str(error.seconds)}
    if isinstance(error, NoModelError):
        return 404, {}
    return (500, {}) if isinstance(error, WorkerError) else (422, {})


def _add_health(app: FastAPI, deployment: Deployment, metrics: Metrics) -> None:
    @app.get("/healthz", response_model=schemas.Health, tags=["health"], summary="Does the server live?")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get(
        "/readyz",
        response_model=schemas.Health,
        tags=["health"],
        summary="Can it answer? Not while it starts, ends, or has no worker.",
        responses=problems(503),
    )
    async def readyz() -> Response:
        if deployment.draining or not deployment.pool.workers_ready:
            why = "the server is about to end" if deployment.draining else "no worker is ready"
            raise ProblemError(503, why, {"retry-after": "1"})
        return JSONResponse({"status": "ok"})

    @app.get(
        "/metrics",
        tags=["health"],
        summary="Figures for Prometheus",
        response_class=Response,
        responses=file_of_kind("text/plain", "In Prometheus's text form.") | problems(401),
    )
    async def read_metrics() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)


def _add_models(app: FastAPI, deployment: Deployment) -> None:
    @app.get(
        "/v1/models",
        response_model=list[schemas.ModelLine],
        tags=["models"],
        summary="The models that this server serves",
        responses=problems(401),
    )
    async def models() -> Response:
        return JSONResponse([_line(model) for model in deployment.served.values()])

    @app.get(
        "/v1/models/{name}",
        response_model=schemas.Card,
        tags=["models"],
        summary="All that a model says of itself",
        responses=problems(401, 404),
    )
    async def card(name: str) -> Response:
        return JSONResponse(card_of(deployment.find(name)))

    @app.get(
        "/v1/catalogue",
        response_model=schemas.Catalogue,
        tags=["catalogue"],
        summary="Every network that Taxonet has, with paper, figures and weights",
        responses=problems(401),
    )
    async def networks() -> Response:
        return Response(await asyncio.to_thread(catalogue), media_type="application/json")

    @app.get(
        "/v1/catalogue/{network}/drawing",
        tags=["catalogue"],
        summary="A picture of a network's stages",
        response_class=Response,
        responses=file_of_kind("image/svg+xml", "SVG.") | problems(401, 404, 422, 503, 504),
    )
    async def drawing(network: str) -> Response:
        if await asyncio.to_thread(sheet_of, network) is None:
            raise ProblemError(404, f"there is no network '{network[:100]}'{nearest(network[:100], network_names())}")
        reply = await deployment.pool.ask_any({"kind": "draw", "model": "", "network": network})
        return Response(reply.body, media_type="image/svg+xml", headers={"cache-control": "max-age=3600"})


def _line(model: Served) -> dict[str, Any]:
    return {
        "name": model.name,
        "variant": model.info.variant,
        "classes": model.info.num_classes,
        "engine": model.engine,
        "explains": model.explains,
    }


def _add_predict(app: FastAPI, settings: Settings, deployment: Deployment, metrics: Metrics) -> None:
    @app.post(
        "/v1/models/{name}/predict",
        response_model=list[schemas.Answer],
        tags=["predict"],
        summary="Classify pictures: one entry each, in the order given, with `error` where one is bad",
        openapi_extra=pictures(settings.max_files, OPTIONS),
        responses=ASKING,
    )
    async def predict(
        request: Request,
        name: str,
        top: Top = 5,
        threshold: Threshold = None,
        preview: Annotated[bool, Query(description="Send what the network saw along.")] = False,
    ) -> Response:
        deployment.find(name)  # refused before the body is read
        _check_query(request, *OPTIONS)
        uploads, options = await read_request(
            request.headers.get("content-type", ""), await request.body(), settings.max_files
        )
        model = deployment.find(name)  # it may have been replaced meanwhile; from here to the queue nothing waits
        top, threshold, preview = _options(options, top, threshold, preview)
        head = {
            "kind": "picture",
            "model": model.key,
            "top": top,
            "threshold": threshold,
            "preview": preview,
            "full": False,
        }
        futures = deployment.pool.submit(
            [head | {"path": upload.name} for upload in uploads], [upload.data for upload in uploads]
        )
        replies = await asyncio.gather(*futures, return_exceptions=True)
        answers = [_answer(upload, reply, model, metrics) for upload, reply in zip(uploads, replies, strict=True)]
        text = json.dumps(answers, ensure_ascii=False, separators=(",", ":"))
        return Response(text, media_type="application/json", headers={"server-timing": _server_timing(answers)})

    @app.post(
        "/v1/models/{name}/explain",
        tags=["predict"],
        summary="A heat map of one picture: the places that speak for the answer, on what the network saw",
        openapi_extra=pictures(1, {}),
        response_class=Response,
        responses=file_of_kind("image/png", "PNG.") | ASKING,
    )
    async def explain(
        request: Request,
        name: str,
        method: Annotated[str, Query(pattern=METHODS)] = "gradcam",
        target: Annotated[str | None, Query(description="A class; by default the answer.")] = None,
        layer: Annotated[str | None, Query(description="A stage of the network, for gradcam.")] = None,
    ) -> Response:
        deployment.find(name)  # refused before the body is read
        _check_query(request, "method", "target", "layer")
        uploads, options = await read_request(
            request.headers.get("content-type", ""), await request.body(), settings.max_files
        )
        model = deployment.find(name)  # it may have been replaced meanwhile; from here to the queue nothing waits
        if len(uploads) > 1 or options:
            raise ProblemError(422, "explain takes one picture and nothing beside it; options stand in the address")
        if not model.explains:
            raise ProblemError(422, f"{name} is an export, which has no gradients: serve its bundle for heat maps")
        head = {"kind": "explain", "model": model.key, "path": model.copy}
        reply = await deployment.pool.ask_any(
            head | {"method": method, "target": target, "layer": layer}, uploads[0].data
        )
        if text := reply.head.get("error"):
            raise ProblemError(422, f"the picture cannot be read: {text}")
        return Response(reply.body, media_type="image/png")


def _check_query(request: Request, *known: str) -> None:
    """A value that is misspelt would otherwise do nothing, in silence."""
    for key in request.query_params:
        if key not in known:
            raise ProblemError(422, f"there is no option '{key[:100]}', only {', '.join(known)}{nearest(key, known)}")


def _options(
    given: Mapping[str, Any], top: int, threshold: float | None, preview: bool
) -> tuple[int, float | None, bool]:
    """The options beside the pictures, which come before those of the address; a form has them as texts."""
    for key in given:
        if key not in OPTIONS:
            raise ProblemError(
                400, f"there is no option '{key[:100]}', only {', '.join(OPTIONS)}{nearest(key, OPTIONS)}"
            )
    try:
        if "top" in given:
            top = _number(given["top"], int)
        if given.get("threshold") is not None:
            threshold = _number(given["threshold"], float)
    except (TypeError, ValueError, OverflowError):
        raise ProblemError(422, "top must be a whole number and threshold a probability") from None
    if "preview" in given:
        if given["preview"] not in (True, False, "true", "false"):
            raise ProblemError(422, "preview must be true or false")
        preview = given["preview"] in (True, "true")
    if not 1 <= top <= MAX_TOP:
        raise ProblemError(422, f"top is {top}, it must be from 1 to {MAX_TOP}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ProblemError(422, f"threshold is {threshold}, it must be a probability from 0 to 1")
    return top, threshold, preview


def _number(value: Any, kind: type) -> Any:
    """A number of JSON (2.0 is a whole one), or a form's text; what is neither raises."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    return kind(value)


def _answer(upload: Upload, reply: Reply | BaseException, model: Served, metrics: Metrics) -> dict[str, Any]:
    """One picture's entry; what failed on it is its error."""
    empty: dict[str, Any] = {"path": upload.name, "predictions": [], "error": None, "abstained": False}
    if isinstance(reply, BaseException):
        if not isinstance(reply, TaxonetError):
            raise reply
        metrics.errors.labels("model").inc()
        return empty | {"error": str(reply)}
    head = reply.head
    if failed := head.get("failed"):
        metrics.errors.labels("model").inc()
        return empty | {"error": failed}
    metrics.picture(model.name, head)
    timing = {name: round(1000 * seconds, 3) for name, seconds in zip(STAGES, head["timing"], strict=True)}
    if text := head.get("error"):
        metrics.errors.labels("picture").inc()
        return empty | {"error": text, "timing": timing}
    model.drift.add(head["features"])
    answer = {**head["answer"], "timing": timing}
    if reply.body:
        answer["preview"] = "data:image/png;base64," + base64.b64encode(reply.body).decode()
    return answer


def _server_timing(answers: Sequence[Mapping[str, Any]]) -> str:
    """The longest of each stage, as browsers show it."""
    timings = [answer["timing"] for answer in answers if "timing" in answer]
    return ", ".join(f"{name};dur={max((t[name] for t in timings), default=0):.1f}" for name in STAGES)
