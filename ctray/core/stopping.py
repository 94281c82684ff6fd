"""Ending on a signal: the main thread unwinds, and everything that was begun is ended with it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

# SIGINT has a handler of Python's own, which raises a KeyboardInterrupt.
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []


def stop_on_signals() -> None:
    """Have SIGTERM and SIGHUP raise `KeyboardInterrupt` in the main thread, as SIGINT does.

    A signal that is ignored, as `nohup` asks for, stays ignored. Outside the main thread, where
    Python takes no handlers, nothing is done.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _SIGNALS:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _stop)


def stopped_by() -> signal.Signals:
    """The signal that has interrupted this process."""
    return signal.Signals(_received[-1]) if _received else signal.SIGINT


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Keep the handlers of this process: Ray puts its own in their place when it starts.

    Ray's core would print a C++ stack and abort on SIGTERM.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (*_SIGNALS, signal.SIGINT)}
    try:
        yield
    except SystemExit as error:
        # What the handler of Ray raises while it starts.
        if error.code != signal.SIGTERM:
            raise
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt from error
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    # Whoever asks again while everything is being ended does not end it any sooner.
    signal.signal(number, signal.SIG_IGN)
    # Kept here: Ray raises an interrupt of its own in place of what a handler raises.
    _received.append(number)
    raise KeyboardInterrupt
