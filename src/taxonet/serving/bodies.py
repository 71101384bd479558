"""Pictures out of a request's body: raw, multipart or JSON with base64; nothing is written to a disk."""

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Any

from taxonet.errors import nearest
from taxonet.serving.problems import ProblemError

FIELDS = ("files", "file")  # of a multipart form; the second is what many clients call a single one
RAW = (
    "application/octet-stream",
    "application/x-www-form-urlencoded",
)  # the latter is curl's own
LARGE = 2**19  # bytes of a body that takes milliseconds to read
MAX_NAME = 255
MAX_OPTIONS = 16  # fields of a form that are no files
VALUES = 8  # commas and brackets of a picture in JSON, at most
MAX_OPTION = 100  # bytes of a form's field that is no file


@dataclass(frozen=True)
class Upload:
    """One picture of a request: its name where the client gave one, and its bytes."""

    name: str | None
    data: bytes


def read_uploads(content_type: str, body: bytes, max_files: int) -> tuple[list[Upload], dict[str, Any]]:
    """The pictures of a body, and the options that stand beside them.

    Raises:
        ProblemError: a kind of body that is not taken (415), a damaged one (400), no pictures (400) or too many (413).
    """
    kind, boundary = _kind(content_type)
    options: dict[str, Any] = {}
    if kind.startswith("image/") or kind in RAW:
        uploads = [Upload(None, body)]
        if not body:
            raise ProblemError(400, "the body is empty, it must be a picture")
    elif kind == "multipart/form-data":
        uploads, options = _multipart(body, boundary, max_files)
    elif kind == "application/json":
        uploads, options = _json(body, max_files)
    else:
        raise ProblemError(
            415,
            f"the content type is '{kind[:100]}', it must be image/…, application/octet-stream, multipart/form-data or "
            "application/json",
        )
    if not uploads:
        raise ProblemError(400, "the request has no pictures: send them in fields called 'files'")
    return uploads, options


async def read_request(content_type: str, body: bytes, max_files: int) -> tuple[list[Upload], dict[str, Any]]:
    """The same without standing in the way of other requests: what is large is read by a thread."""
    if len(body) < LARGE:
        return read_uploads(content_type, body, max_files)
    return await asyncio.to_thread(read_uploads, content_type, body, max_files)


def _kind(content_type: str) -> tuple[str, str]:
    message = Message()
    message["content-type"] = content_type or "application/octet-stream"
    boundary = message.get_param("boundary", "")
    return message.get_content_type() if content_type else RAW[0], boundary if isinstance(boundary, str) else ""


def _too_many(max_files: int) -> ProblemError:
    return ProblemError(413, f"the request has more than {max_files} pictures, send them in several")


def _multipart(body: bytes, boundary: str, max_files: int) -> tuple[list[Upload], dict[str, Any]]:
    """The files and fields of a form (RFC 7578)."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    form = _Form(max_files)
    try:
        parser = MultipartParser(boundary.encode("latin-1"), form.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, UnicodeError, ValueError) as error:
        raise ProblemError(400, "the multipart body is damaged, or its boundary is not the header's") from error
    if not form.ended:
        raise ProblemError(400, "the multipart body is cut: its last boundary is missing")
    return form.uploads, form.options


class _Form:
    """What the parser's callbacks collect."""

    def __init__(self, max_files: int) -> None:
        self.max_files = max_files
        self.uploads: list[Upload] = []
        self.options: dict[str, Any] = {}
        self.ended = False
        self.parts = 0
        self._headers: dict[str, str] = {}
        self._name, self._value, self._data = b"", b"", bytearray()

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > self.max_files + MAX_OPTIONS:
            raise ProblemError(413, f"the form has more than {self.max_files + MAX_OPTIONS} fields")
        self._headers, self._data = {}, bytearray()
        self._name = self._value = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("utf-8", "replace")
        self._name = self._value = b""

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def _end(self) -> None:
        message = Message()
        message["content-disposition"] = self._headers.get("content-disposition", "")
        field = message.get_param("name", "", "content-disposition")
        file = message.get_filename()
        if field in FIELDS:
            if len(self.uploads) >= self.max_files:
                raise _too_many(self.max_files)
            self.uploads.append(Upload(_name(file), bytes(self._data)))
        elif isinstance(field, str) and file is None and len(self._data) <= MAX_OPTION:
            self.options[field] = self._data.decode("utf-8", "replace")
        else:
            raise ProblemError(
                400,
                f"the form has a field '{str(field)[:100]}', pictures stand in 'files'{nearest(str(field), FIELDS)}",
            )

    def _finish(self) -> None:
        self.ended = True


def _name(name: Any) -> str | None:
    """The last part of a file's name, as a text without control characters."""
    if not isinstance(name, str):
        return None
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(ch for ch in last if ch.isprintable())[:MAX_NAME] or None


def _json(body: bytes, max_files: int) -> tuple[list[Upload], dict[str, Any]]:
    """`{"images": [BASE64 | {"name", "data": BASE64}], "top", "threshold", …}`."""
    if sum(map(body.count, (b",", b"[", b"{"))) > VALUES * (max_files + MAX_OPTIONS):  # before it is taken apart
        raise _too_many(max_files)
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, "the body is not JSON") from error
    if not isinstance(document, dict) or not isinstance(document.get("images"), list):
        raise ProblemError(400, 'the JSON must be an object with "images", a list of pictures in base64')
    images: Sequence[Any] = document.pop("images")
    if len(images) > max_files:
        raise _too_many(max_files)
    return [_decoded(image, number) for number, image in enumerate(images)], document


def _decoded(image: Any, number: int) -> Upload:
    fields = image if isinstance(image, dict) else {"data": image}
    data = fields.get("data")
    if not isinstance(data, str) or not set(fields) <= {"name", "data"}:
        raise ProblemError(400, f'images[{number}] must be base64, or an object with "name" and "data"')
    head, comma, rest = data.partition(",")
    text = rest if comma and head.startswith("data:") else data  # a data URI, as browsers make them
    try:
        return Upload(_name(fields.get("name")), base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as error:
        raise ProblemError(400, f"images[{number}] is not base64") from error
