"""The command `taxonet`: it finds the verb, runs it, and turns errors into one sentence and an exit status."""

import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from cyclopts import App, CycloptsError

from taxonet._version import __version__
from taxonet.cli.calibrate import calibrate
from taxonet.cli.check import check
from taxonet.cli.compare import compare
from taxonet.cli.demo import demo
from taxonet.cli.evaluate import evaluate
from taxonet.cli.explain import explain
from taxonet.cli.export import export
from taxonet.cli.import_weights import import_weights
from taxonet.cli.info import info
from taxonet.cli.models import models
from taxonet.cli.predict import predict
from taxonet.cli.pull import pull
from taxonet.cli.refusals import as_typed, sentence
from taxonet.cli.serve import serve
from taxonet.cli.train import train
from taxonet.errors import TaxonetError
from taxonet.processes import launched, leave, speaks

FINDINGS, USAGE, INTERRUPTED = 1, 2, 130
VERBOSE = ("--verbose", "-v")
VERBS: dict[str, Callable[..., int]] = {
    "models": models,
    "info": info,
    "predict": predict,
    "check": check,
    "train": train,
    "evaluate": evaluate,
    "calibrate": calibrate,
    "compare": compare,
    "explain": explain,
    "export": export,
    "import": import_weights,
    "pull": pull,
    "serve": serve,
    "demo": demo,
}

app = App(
    name="taxonet",
    help="The classic image classifiers, faithful to their papers and ready for work.\n\n"
    "Exit status: 0 done, 1 done with findings (broken files), 2 wrong usage, 3 the input cannot be used. "
    "`--verbose` (`-v`) says which engine was chosen and why, `--debug` shows the traceback of an error.",
    version=__version__,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)
for name, verb in VERBS.items():
    app.command(verb, name=name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the entry point of the installed script."""
    if arguments is None:
        signal.signal(signal.SIGTERM, _end_by)
        status = _run(sys.argv[1:])
        leave(128 + _ended_by[0] if _ended_by else status)
    return _run(arguments)


_ended_by: list[int] = []  # the signal


def _end_by(number: int, _: object) -> None:
    """Leave by an exception, so that what is half done is cleared away; a library may make another one of it."""
    _ended_by.append(number)
    sys.exit(128 + number)


def _run(arguments: Sequence[str]) -> int:
    words = list(arguments)
    debug = "--debug" in words
    verbose = any(word in VERBOSE for word in words)
    words = ["@-" if word == "-" else word for word in words if word not in ("--debug", *VERBOSE)]  # stdin
    _print_whatever_comes()
    with _speaking_up(verbose):
        return _answered(words, debug)


def _answered(words: Sequence[str], debug: bool) -> int:
    """The exit status of one command; what goes wrong becomes one sentence."""
    try:
        status = app(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(sentence(error, VERBS), USAGE, debug)
    except TaxonetError as error:
        return _fail(as_typed(str(error), words), error.exit_status, debug)
    except KeyboardInterrupt:
        return _fail("stopped", INTERRUPTED, debug)
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        kind = type(error).__name__
        return _fail(f"{kind}: {error}; this is a defect of Taxonet, --debug shows where", 3, debug)
    # torchrun takes every other status than 0 for a failure, and would start a run again that is done
    return 0 if status == FINDINGS and launched() else int(status or 0)


@contextmanager
def _speaking_up(verbose: bool) -> Iterator[None]:
    """Let what the package notes come to stderr: warnings always, and reasons of choices where they are asked for."""
    logger = logging.getLogger("taxonet")
    before = logger.level, logger.handlers  # a program that calls `main` has its own
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("taxonet: %(message)s"))
    logger.handlers = [handler]
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.handlers = before[1]


def _print_whatever_comes() -> None:
    """Let a file name that is no text, or a letter that the terminal lacks, be printed escaped, not crash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(sentence: str, status: int, debug: bool) -> int:
    if debug:
        raise  # noqa: PLE0704 - called while an error is handled
    if speaks() and not _ended_by:  # of several processes one tells
        print(f"taxonet: {sentence}", file=sys.stderr)
    return status
