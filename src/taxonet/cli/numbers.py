"""Whole numbers of the command line, which are not rounded: 1.5 epochs are refused."""

from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

from taxonet.errors import UsageError


def _whole(kind: Any, tokens: Sequence[Token]) -> int:  # cyclopts' own conversion takes 1.5 for 2
    try:
        return int(tokens[0].value)
    except ValueError as error:
        raise UsageError(f"{tokens[0].keyword} is '{tokens[0].value}', it must be a whole number") from error


Whole = Annotated[int, Parameter(converter=_whole)]
MaybeWhole = Annotated[int | None, Parameter(converter=_whole)]
