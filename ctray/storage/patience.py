"""Waiting for a store that is away, and then repeating the work on a whole volume.

A store that restarts is away for seconds to minutes: longer than `ctray.storage.s3_client` repeats
one request. The volume in work at that time is not broken, nor are those after it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from tenacity import (
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_chain,
    wait_fixed,
)

from ctray.core.errors import ConfigError, OutageError, StorageError, StoreUnavailableError
from ctray.storage import store

Result = TypeVar("Result")

# A store that answers in between and fails each time has a problem with this volume.
ATTEMPTS = 3
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_DEFAULT_S = 600.0


def patience_s() -> float:
    """How long to wait for a store: ``CTRAY_STORE_PATIENCE_S``, 600 s by default."""
    text = os.environ.get("CTRAY_STORE_PATIENCE_S", "")
    try:
        value = float(text) if text else _DEFAULT_S
    except ValueError as error:
        raise ConfigError(f"CTRAY_STORE_PATIENCE_S={text!r} is no number") from error
    if not value >= 0:
        raise ConfigError(f"CTRAY_STORE_PATIENCE_S={text} must be 0 or more")
    return value


def patiently(work: Callable[[], Result], urls: Sequence[str]) -> Result:
    """Call `work`, and repeat it when a store was away meanwhile; at most three calls.

    Parameters
    ----------
    work
        Safe to repeat.
    urls
        Places that `work` needs: before each repeat, all of them must answer.

    Raises
    ------
    OutageError
        If the store of one of `urls` stays away.
    StoreUnavailableError
        The last error of `work`, if the stores answered each time.
    """
    attempts = Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_after_attempt(ATTEMPTS),
        before_sleep=lambda _: wait_for(urls),
        reraise=True,
    )
    return attempts(work)


def wait_for(urls: Sequence[str]) -> None:
    """Return once the stores of all `urls` answer, whether or not something is there.

    Raises
    ------
    OutageError
        If one does not within `patience_s`.
    """
    limit = patience_s()
    attempts = Retrying(
        retry=retry_if_exception_type(StoreUnavailableError),
        stop=stop_before_delay(limit),
        wait=wait_chain(*(wait_fixed(pause) for pause in _PAUSES_S)),
    )
    try:
        attempts(_ask, urls)
    except RetryError as stopped:
        error = stopped.last_attempt.exception()
        raise OutageError(
            f"{error}; waited {limit:g} s for it (CTRAY_STORE_PATIENCE_S); run the same command "
            "again once the store is back"
        ) from error


def _ask(urls: Sequence[str]) -> None:
    for url in urls:
        try:
            store.exists(url)
        except StoreUnavailableError:
            raise
        except StorageError:
            continue  # A refusal is an answer too; the work that needs the store will report it.
