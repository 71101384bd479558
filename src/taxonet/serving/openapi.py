"""What the OpenAPI document says beyond what FastAPI finds out by itself: bodies of pictures, refusals, tokens."""

import functools
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse

from taxonet.serving import schemas
from taxonet.serving.problems import MEDIA_TYPE
from taxonet.serving.settings import Settings

MAX_TOP = 1000  # classes that an answer may name
_ENCODED = {"type": "string", "format": "byte", "description": "A picture in base64, or as a data URI."}
_FILE = {"type": "string", "format": "binary"}
OPTIONS: dict[str, Any] = {  # that a prediction takes beside its pictures
    "top": {"type": "integer", "minimum": 1, "maximum": MAX_TOP},
    "threshold": {"type": "number", "minimum": 0, "maximum": 1},
    "preview": {"type": "boolean"},
}


def pictures(most: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a route that takes up to `most` pictures."""
    image = {
        "oneOf": [
            _ENCODED,
            {
                "type": "object",
                "required": ["data"],
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "data": _ENCODED},
            },
        ]
    }
    images = {"type": "array", "minItems": 1, "maxItems": most, "items": image}
    files = {"type": "array", "minItems": 1, "maxItems": most, "items": _FILE}

    def fields(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties = {name: schema, **options}
        document = {"type": "object", "required": [name], "additionalProperties": False, "properties": properties}
        return {"schema": document}

    raw = {"schema": {**_FILE, "minLength": 1}}
    content = {
        "image/*": raw,
        "application/octet-stream": raw,
        "multipart/form-data": fields("files", files),
        "application/json": fields("images", images),
    }
    what = "One picture as the body itself" + (
        ", or one or many as a form or in JSON." if most > 1 else ", a form, JSON."
    )
    return {"requestBody": {"required": True, "description": what, "content": content}}


_PROBLEM = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_WORDS = {
    400: "The request cannot be read.",
    401: "A token is needed.",
    404: "There is no such model.",
    405: "The address has other methods.",
    408: "The body took too long.",
    413: "The body is too large, or has too many pictures.",
    415: "The body is of a kind that is not taken.",
    422: "A value is wrong, or it cannot be done.",
    500: "The server failed.",
    503: "Too much waits; come again after Retry-After.",
    504: "The answer took too long.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that are problems."""
    return {status: {"description": _WORDS[status], **_PROBLEM} for status in sorted((*statuses, 500))}


def file_of_kind(media_type: str, what: str) -> dict[int | str, dict[str, Any]]:
    """The response of a route that answers with something else than JSON."""
    return {200: {"description": what, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}


ASKING = problems(400, 401, 404, 408, 413, 415, 422, 503, 504)


def add_openapi(app: FastAPI, settings: Settings) -> None:
    """Add the document's route; FastAPI makes the document when it is first asked for."""

    @functools.cache
    def document() -> dict[str, Any]:
        found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        parts = found.setdefault("components", {}).setdefault("schemas", {})
        parts["Problem"] = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            parts.pop(unused, None)
        for path in found["paths"].values():
            for operation in path.values():
                refusal = operation["responses"].get("422")
                if refusal and "application/json" in refusal.get("content", {}):  # FastAPI's form, not ours
                    operation["responses"]["422"] = {"description": _WORDS[422], **_PROBLEM}
        if settings.tokens:
            found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            found["security"] = [{"token": []}]
        return found

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(document())
