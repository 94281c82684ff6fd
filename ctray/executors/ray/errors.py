"""Finds the actual error inside the errors that Ray wraps around it."""

from __future__ import annotations

import re

from ray.exceptions import ActorUnavailableError

from ctray.core import errors
from ctray.core.errors import CtrayError

# Ray hands some errors on as text alone. The last line of a traceback has class and message.
_IN_TEXT = re.compile(rf"^\s*{re.escape(errors.__name__)}\.(\w+): (.+)$", re.MULTILINE)


def own_error(error: BaseException) -> CtrayError | None:
    """Return the `CtrayError` of another process that made Ray raise `error`; None without one.

    It is either a cause of `error` or the last one that the text of `error` names.
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
        found = _IN_TEXT.findall(text)
        if found:
            name, message = found[-1]
            kind: type[CtrayError] = getattr(errors, name, CtrayError)
            return kind(message.strip())
    return None


def is_node_death(error: BaseException) -> bool:
    """Whether an actor is gone because its node is gone."""
    # Ray notices a dead process within a second. A dead node only looks out of reach at first.
    return isinstance(error, ActorUnavailableError) or "node has died" in str(error)


def last_line(error: BaseException) -> str:
    """Return the last line of an error's message that is not empty, or its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
