"""What the parser refuses, in the one voice of all errors: the thing, the rule, the nearest right spelling."""

import re
from collections.abc import Collection, Sequence

from cyclopts import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from taxonet.errors import nearest

VALUES = {int: "a whole number", float: "a number", bool: "true or false"}


def sentence(error: CycloptsError, verbs: Collection[str]) -> str:
    """One line for what the parser found wrong."""
    verb = error.command_chain[-1] if error.command_chain else "taxonet"
    told = " ".join(str(error).split())
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        word = error.unused_tokens[0]
        told = f"there is no verb '{word}'{nearest(word, verbs) or '; it must be one of: ' + ', '.join(verbs)}"
    elif isinstance(error, MissingArgumentError):
        told = _missing(verb, error) or told
    elif isinstance(error, CoercionError):
        told = _wrong(error) or told
    elif isinstance(error, UnknownOptionError):
        word = error.token.keyword or error.token.value
        options = [name for argument in error.argument_collection if argument.parse for name in argument.names]
        near = nearest(word, [name for name in options if name.startswith("-")])
        told = f"{verb} has no option '{word}'{near or f', taxonet {verb} --help lists them'}"
    elif isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        told = f"{verb} has no place for '{error.unused_tokens[0]}', taxonet {verb} --help shows what it takes"
    elif isinstance(error, RepeatArgumentError):
        told = f"{error.token.keyword} is given twice, it takes one value"
    return told


def _missing(verb: str, error: MissingArgumentError) -> str:
    if error.keyword is not None:  # given, with nothing behind it
        return f"{error.keyword} needs a value"
    if error.argument is None:
        return ""
    kind = error.argument.field_info.kind
    by_place = kind in (kind.POSITIONAL_ONLY, kind.POSITIONAL_OR_KEYWORD)
    name = error.argument.name.lstrip("-").upper() if by_place else error.argument.name
    return f"{verb} needs {name}, taxonet {verb} --help shows what it takes"


def _wrong(error: CoercionError) -> str:
    if error.msg is not None:  # a converter of ours has said it
        return str(error.msg)
    if error.token is None or error.target_type not in VALUES:
        return ""
    name = error.token.keyword or (error.argument.name if error.argument else "the value")
    return f"{name} is '{error.token.value}', it must be {VALUES[error.target_type]}"


def as_typed(told: str, words: Sequence[str]) -> str:
    """A sentence of the library with the options that were typed in place of the values' names.

    A name of one word is only taken where the sentence begins with it: it may be an ordinary word elsewhere. A name
    that is part of a path, or that is also the name of something that was typed, stays as it is.
    """
    places = {part for word in words if not word.startswith("-") for part in re.split(r"[\\/]", word)}
    for word in words:
        option = word.partition("=")[0]
        name = option.removeprefix("--").replace("-", "_")
        if option.startswith("--") and name and name not in places:
            start = r"(?<![\w./\\-])" if "_" in name else "^"
            pattern = rf"{start}{re.escape(name)}(?![\w./\\-])"
            told = re.sub(pattern, option.replace("\\", r"\\"), told)  # what was typed is no template
    return told
