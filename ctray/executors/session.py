"""Opening an executor: which ones there are, and which one the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib import import_module

from ctray.config import RayConfig
from ctray.core.errors import RayStartError
from ctray.executors.protocol import Executor
from ctray.records.events import nobody

# Modules with a function `session(config, on_note)`, a context manager that gives an `Executor`.
# Names, not imports: loading Ray or torch takes seconds.
EXECUTORS = {
    "local": "ctray.executors.local.executor",
    "ray": "ctray.executors.ray.executor",
}


@contextmanager
def executor_session(
    config: RayConfig, on_note: Callable[[str], None] = nobody, *, kind: str | None = None
) -> Iterator[Executor]:
    """Open an executor for the block.

    If Ray does not start on this machine, the block gets plain processes.

    Parameters
    ----------
    config
        Ray session to start or to connect to; CPUs of the plain processes.
    on_note
        Called with a line about what the command waits for, and what it does instead.
    kind
        Name in `EXECUTORS`; None takes "local" with `ray.local`, else "ray".

    Raises
    ------
    CtrayError
        If no cluster answers at the configured address.
    """
    kind = kind or ("local" if config.local else "ray")
    with ExitStack() as stack:
        try:
            executor = stack.enter_context(_open(kind, config, on_note))
        except RayStartError as error:
            on_note(f"{error}. Continuing without Ray; --ray-timeout waits longer.")
            executor = stack.enter_context(_open("local", config, on_note))
        yield executor


def _open(
    kind: str, config: RayConfig, on_note: Callable[[str], None]
) -> AbstractContextManager[Executor]:
    if kind == "ray":
        on_note("loading Ray")
    opened: AbstractContextManager[Executor] = import_module(EXECUTORS[kind]).session(
        config, on_note
    )
    return opened


def running_executor() -> Executor:
    """Return the executor of the Ray session that is running."""
    from ctray.executors.ray.executor import RayExecutor

    return RayExecutor()
