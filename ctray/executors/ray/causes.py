"""Finding what really went wrong inside the errors that Ray wraps around it."""

from __future__ import annotations

import re

from ray.exceptions import ActorUnavailableError

from ctray.core import errors
from ctray.core.errors import CtrayError

# Ray passes on some errors as text alone: the last line of a traceback names class and message.
_TOLD = re.compile(r"^\s*ctray\.errors\.(\w+): (.+)$", re.MULTILINE)


def own_error(error: BaseException) -> CtrayError | None:
    """Find the `CtrayError` of another process in what Ray raised for it; None if it is not one.

    It is either a cause of `error`, as an object, or the last one that its text tells of.
    """
    open_errors: list[BaseException] = [error]
    texts: list[str] = []
    seen: set[int] = set()
    while open_errors:
        current = open_errors.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, CtrayError):
            return current
        texts += [str(getattr(current, "traceback_str", "")), str(current)]
        workers = getattr(current, "worker_failures", None) or {}
        inner = [getattr(current, "cause", None), current.__cause__, *workers.values()]
        open_errors += [e for e in inner if isinstance(e, BaseException)]
    for text in texts:
        found = _TOLD.findall(text)
        if found:
            name, message = found[-1]
            kind: type[CtrayError] = getattr(errors, name, CtrayError)
            return kind(message.strip())
    return None


def is_node_death(error: BaseException) -> bool:
    """Whether an actor is gone because its node is."""
    # A process that dies is known within a second; a node is only out of reach at first.
    return isinstance(error, ActorUnavailableError) or "node has died" in str(error)


def last_line(error: BaseException) -> str:
    """Last line of an error's message that says something, or its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
