"""Clients of S3: one policy for endpoint, keys, time-outs and repeated requests.

Endpoint, keys and region come from the usual environment (``AWS_ENDPOINT_URL``,
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_REGION``) or from the
AWS configuration files. Without any key, requests are anonymous. ``CTRAY_S3_TIMEOUT_S`` bounds one
request (30 s), ``CTRAY_S3_RETRIES`` the repeats of a failed one (2).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tenacity import retry_if_exception, stop_after_attempt, stop_after_delay

from ctray.core.errors import AccessError, ConfigError

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3Store

CONNECT_TIMEOUT_S = 5.0
# botocore needs ten milliseconds to find keys, and a large catalog opens thousands of clients.
_KEYS_AGE_S = 30.0
_ENVIRONMENT = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "CTRAY_S3_TIMEOUT_S",
    "CTRAY_S3_RETRIES",
)


def client(bucket: str, prefix: str = "") -> S3Store:
    """Client whose root is `prefix` in `bucket`; kept until the environment changes."""
    return _client(bucket, prefix, _environment())


def listing_client() -> Any:
    """Client of botocore for listings; kept until the environment changes."""
    return _listing_client(_environment(), _keys() is None)


def repeat_policy() -> dict[str, Any]:
    """Repeats that obstore omits, as options of tenacity, within the same total time.

    obstore does not repeat a POST that was lost on the way, because it may have been done. ctray
    only sends deletions that way, and deleting twice does no harm. obstore also does not repeat an
    answer that broke off if it is an error or a listing.
    """
    return {
        "retry": retry_if_exception(_is_omitted),
        "stop": stop_after_attempt(retries() + 1) | stop_after_delay(timeout_s() * (retries() + 1)),
        "reraise": True,
    }


def timeout_s() -> float:
    """Longest wait for one request, in seconds."""
    return _setting("CTRAY_S3_TIMEOUT_S", 30.0)


def retries() -> int:
    """How often a failed request is repeated."""
    return int(_setting("CTRAY_S3_RETRIES", 2.0))


def _is_omitted(error: BaseException) -> bool:
    from obstore.exceptions import GenericError

    broken_off = "body error" in str(error) or "performing POST" in str(error)
    return broken_off and isinstance(error, GenericError)


@lru_cache(maxsize=64)
def _client(bucket: str, prefix: str, environment: tuple[str | None, ...]) -> S3Store:
    from obstore.store import S3Store

    endpoint = _endpoint()
    options: dict[str, Any] = {"region": _region()}
    if endpoint:
        options["endpoint"] = endpoint
    if _keys() is None:
        options["skip_signature"] = True
    else:
        options["credential_provider"] = _credentials
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "timeout": timedelta(seconds=timeout_s()),
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
        },
        retry_config={
            "max_retries": retries(),
            "retry_timeout": timedelta(seconds=timeout_s() * (retries() + 1)),
        },
        **options,
    )


@lru_cache(maxsize=8)
def _listing_client(environment: tuple[str | None, ...], is_anonymous: bool) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=timeout_s(),
        retries={"total_max_attempts": retries() + 1, "mode": "standard"},
        s3={"addressing_style": "path"},
        # Older gateways answer the newer checksum headers with an error.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({"signature_version": UNSIGNED} if is_anonymous else {}),
    )
    return botocore.session.get_session().create_client(
        "s3", endpoint_url=_endpoint(), region_name=_region(), config=config
    )


def _credentials() -> S3Credential:
    """Keys for obstore, which asks again after ten minutes because short-lived keys expire."""
    found = _keys()
    if found is None:
        raise AccessError("no S3 keys; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    keys = found.get_frozen_credentials()
    return {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": datetime.now(UTC) + timedelta(minutes=10),
    }


def _environment() -> tuple[str | None, ...]:
    """All variables that clients depend on."""
    return tuple(os.environ.get(name) for name in _ENVIRONMENT)


def _keys() -> Any:
    """Keys that botocore finds, at most half a minute old; None without any."""
    return _found_keys(_environment(), int(time.monotonic() / _KEYS_AGE_S))


@lru_cache(maxsize=2)
def _found_keys(environment: tuple[str | None, ...], period: int) -> Any:
    import botocore.session

    return botocore.session.get_session().get_credentials()


def _endpoint() -> str | None:
    """URL of the store; `ConfigError` if it is no URL, because the client would crash on it."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        text = os.environ.get(name)
        if not text:
            continue
        try:
            parts = urlsplit(text)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(
                f"{name}={text!r} is no URL of a store; write http://HOST:PORT or https://HOST"
            )
        return text
    return None


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is no number") from error
    if value < 0:
        raise ConfigError(f"{name}={text} is negative")
    return value
