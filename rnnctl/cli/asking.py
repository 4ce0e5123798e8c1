"""One run of a sweep: a question is asked, and what became of it is told as plain values. Worker processes call it."""

import time
import traceback
from dataclasses import dataclass
from threading import Lock
from typing import Any

from rnnctl.cli.options.command import CommandOptions
from rnnctl.cli.options.mapping import options_from
from rnnctl.cli.questions import QUESTIONS
from rnnctl.cli.setup.request import request_of
from rnnctl.cli.versions import named
from rnnctl.errors import RnnctlError

# Torch's random numbers and threads belong to the whole process: of the threads of an executor one runs at a time.
_ALONE = Lock()


@dataclass(frozen=True)
class Asked:
    """What is asked.

    Attributes:
        question: its name.
        given: its options.
        keep_rows: whether the rows of the result are told, too.
    """

    question: str
    given: CommandOptions
    keep_rows: bool = False


def load(question: str) -> None:
    """Load what every run of a question needs, once a process: the first run is to take as long as any other."""
    answer(Asked(question, options_from(QUESTIONS[question].options, {"threads": 1})))


def answer(asked: Asked) -> dict[str, Any]:
    """Ask it.

    Returns:
        config, scalars and (where asked) rows as in the JSON of the command; in place of the latter ``error``, a text,
        where it failed; seconds that it took; versions of what computed it.
    """
    with _ALONE:
        began = time.perf_counter()
        said = _said(asked)
        return {**said, "seconds": time.perf_counter() - began, "versions": named()}


def failed(asked: Asked, error: str) -> dict[str, Any]:
    """What is told of one that failed: the options as they were given, because nothing has settled them."""
    return {"config": request_of(asked.given).recorded, "error": error}


def _said(asked: Asked) -> dict[str, Any]:
    try:
        return _answered(asked)
    except (RnnctlError, MemoryError) as error:
        return failed(asked, str(error) or "there was not enough memory")
    except Exception as error:
        # A bug, ours or of a library: one run of many is not to end the others.
        return failed(asked, "".join(traceback.format_exception(error)).rstrip())


def _answered(asked: Asked) -> dict[str, Any]:
    from rnnctl.cli.setup.experiment import experiment

    made = experiment(asked.given)
    result = QUESTIONS[asked.question].asked(asked.given, made)
    result.require_agreement()
    found = {"config": {**made.config, **result.settled}, "scalars": dict(result.scalars)}
    return {**found, "rows": list(result.rows)} if asked.keep_rows else found
