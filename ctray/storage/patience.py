"""Outliving a store that is away: repeats of whole volumes, where repeats of requests gave up.

A store that restarts is away for seconds to minutes, longer than `ctray.storage.s3` repeats one
request. A volume that was worked on then is no broken volume, and those after it neither.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from ctray.core.errors import ConfigError, OutageError, StorageError, StoreUnavailableError
from ctray.storage import store

Result = TypeVar("Result")

# A store that answers between them, and fails each time, fails on this volume.
ATTEMPTS = 3
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_DEFAULT_S = 600.0


def patience_s() -> float:
    """How long a store that does not answer is waited for: ``CTRAY_STORE_PATIENCE_S``, 600 s."""
    text = os.environ.get("CTRAY_STORE_PATIENCE_S", "")
    try:
        value = float(text) if text else _DEFAULT_S
    except ValueError as error:
        raise ConfigError(f"CTRAY_STORE_PATIENCE_S={text!r} is no number") from error
    if not value >= 0:
        raise ConfigError(f"CTRAY_STORE_PATIENCE_S={text} must be 0 or more")
    return value


def patiently(work: Callable[[], Result], urls: Sequence[str]) -> Result:
    """Result of `work`, which is done anew when the store was away meanwhile, at most thrice.

    Parameters
    ----------
    work
        Safe to repeat.
    urls
        What `work` needs: before each repeat all of them are waited for.

    Raises
    ------
    OutageError
        If the store of one of `urls` stays away.
    StoreUnavailableError
        What `work` raised last, although the stores answered each time.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return work()
        except StoreUnavailableError:
            wait_for(urls)
    return work()


def wait_for(urls: Sequence[str]) -> None:
    """Return once the stores of all `urls` answer, whether or not something is there.

    Raises
    ------
    OutageError
        If one does not within `patience_s`.
    """
    limit = patience_s()
    until = time.monotonic() + limit
    for url in urls:
        for number in range(10**6):
            try:
                store.exists(url)
                break
            except StoreUnavailableError as error:
                pause = _PAUSES_S[min(number, len(_PAUSES_S) - 1)]
                if time.monotonic() + pause > until:
                    raise OutageError(
                        f"{error}; waited {limit:g} s for it (CTRAY_STORE_PATIENCE_S); run the "
                        "same command again once the store is back"
                    ) from error
                time.sleep(pause)
            except StorageError:
                break  # an answer, if a refusal: whoever needs the store will hear it too
