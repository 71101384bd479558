"""What the server says of a request that it refuses: problem details (RFC 9457), one sentence."""

import json
from http import HTTPStatus
from typing import Any

from taxonet.errors import TaxonetError

MEDIA_TYPE = "application/problem+json"


class ProblemError(TaxonetError):
    """A request that is refused: its status, a sentence, and headers of the answer."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers or {}


def document(status: int, detail: str) -> bytes:
    """The JSON of a problem."""
    return json.dumps(facts(status, detail)).encode()  # ASCII: what a client sent may be no text


def facts(status: int, detail: str) -> dict[str, Any]:
    """A problem's fields; the type is the status itself."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
