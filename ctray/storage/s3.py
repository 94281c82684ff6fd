"""S3: one client, one policy for keys, time-outs and repeats.

Everything that ctray itself reads, writes and lists on S3 goes through obstore: it moves voxels
several times faster than s3fs, and its waits are bounded (a put by s3fs to a server that has
frozen never returns, whatever its time-outs). s3fs serves file formats that need an open file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from zarr.storage import ObjectStore

from ctray.core.errors import AccessError, ConfigError
from ctray.storage.s3_listing import Listed, bounded_pages, folder_entries

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Credential, S3Store
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5.0
_KEYS_AGE_S = 30.0
# A hundred million objects: chunks of a volume.
_MAX_PAGES = 100_000
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


def split(url: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{url} names no bucket; write s3://bucket/key")
    return bucket, key


def client(bucket: str, prefix: str = "") -> S3Store:
    """Client whose root is `prefix` in `bucket`, kept while the environment stays."""
    return _client(bucket, prefix, environment())


class VoxelStore(ObjectStore["S3Store"]):
    """Zarr store over a client, with the same repeats as everything here."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Fetch one object or a part of it; None where it is not there."""
        repeats = _Repeats()
        while True:
            try:
                return await super().get(key, prototype, byte_range)
            except Exception as error:
                if not repeats.has(error):
                    raise


def read(url: str, check: Callable[[int], None] | None = None) -> memoryview:
    """Whole object, as it came: objects are large, and a copy costs a third of checking them.

    `check`, if given, is called with the object's size before its content is fetched.
    """
    import obstore

    bucket, key = split(url)

    def fetch() -> memoryview:
        found = obstore.get(client(bucket), key)
        if check is not None:
            check(found.meta["size"])
        return memoryview(found.bytes())

    return _repeated(fetch)


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
    """Parts [start, stop) of an object; neighbours are fetched in one request, many at once."""
    import obstore

    bucket, key = split(url)
    starts, stops = [a for a, _ in ranges], [b for _, b in ranges]
    with _within_the_object():
        # The caller has joined what lies together; what it left apart is meant to be.
        found = _repeated(
            lambda: obstore.get_ranges(client(bucket), key, starts=starts, ends=stops, coalesce=0)
        )
        return [memoryview(part) for part in found]


def read_suffix(url: str, num_bytes: int) -> bytes:
    """Last bytes of an object."""
    import obstore

    bucket, key = split(url)
    try:
        with _within_the_object():
            options: GetOptions = {"range": {"suffix": num_bytes}}
            return _repeated(
                lambda: bytes(obstore.get(client(bucket), key, options=options).bytes())
            )
    except Exception as error:
        # Servers that know no suffixes send all of it, which obstore does not take.
        if "non-partial response" in str(error):
            return bytes(read(url)[-num_bytes:])
        raise


def size(url: str) -> int:
    """Bytes of an object."""
    import obstore

    bucket, key = split(url)
    return int(_repeated(lambda: obstore.head(client(bucket), key))["size"])


def write(url: str, parts: Sequence[bytes | memoryview]) -> None:
    """Put an object of `parts` in one request, whole or not at all."""
    import obstore

    bucket, key = split(url)
    data = parts[0] if len(parts) == 1 else list(parts)
    _repeated(lambda: obstore.put(client(bucket), key, data, use_multipart=False))


def exists(url: str) -> bool:
    """Whether `url` is an object or has some below it."""
    import obstore

    bucket, key = split(url)
    if key:
        try:
            _repeated(lambda: obstore.head(client(bucket), key))
        except FileNotFoundError:
            pass
        else:
            return True
    return next(iter(listing(url)), None) is not None


def listing(url: str) -> Iterator[tuple[str, int]]:
    """Key and size in bytes of every object below `url`."""
    import obstore

    bucket, key = split(url)
    pages = iter(obstore.list(client(bucket), prefix=key or None))
    to_the_end = iter(lambda: _repeated(lambda: next(pages, None)), None)
    for page in bounded_pages(url, to_the_end, _MAX_PAGES):
        for item in page:
            yield item["path"], item["size"]


def folder(url: str) -> list[Listed]:
    """Name, whether a folder, and size of the entries directly below `url`.

    Raises
    ------
    StorageError
        If the listing does not come to an end.
    """
    bucket, key = split(url)
    prefix = f"{key}/" if key else ""
    return folder_entries(url, bucket, prefix, s3fs_options(), environment())


def remove(url: str) -> None:
    """Remove one object; nothing happens if it is not there."""
    import obstore

    bucket, key = split(url)
    _repeated(lambda: obstore.delete(client(bucket), [key]))


def remove_below(url: str) -> None:
    """Remove every object below `url`."""
    import obstore

    keys = [key for key, _ in listing(url)]
    if keys:
        _repeated(lambda: obstore.delete(client(split(url)[0]), keys))


def s3fs_options() -> dict[str, Any]:
    """Options of an s3fs file system under the same policy."""
    options: dict[str, Any] = {
        "endpoint_url": _endpoint(),
        "client_kwargs": {"region_name": _region()},
        "config_kwargs": {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": timeout_s(),
            "retries": {"total_max_attempts": retries() + 1, "mode": "standard"},
            "s3": {"addressing_style": "path"},
            # Older gateways answer the newer checksum headers with an error.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        "use_listings_cache": False,
    }
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        # Named here because s3fs caches its specimens by their options, not by the environment.
        options["key"] = os.environ["AWS_ACCESS_KEY_ID"]
        options["secret"] = os.environ.get("AWS_SECRET_ACCESS_KEY")
        options["token"] = os.environ.get("AWS_SESSION_TOKEN")
    else:
        options["anon"] = _keys() is None
    return options


def timeout_s() -> float:
    """Longest wait for one request."""
    return _setting("CTRAY_S3_TIMEOUT_S", 30.0)


def retries() -> int:
    """How often a failed request is repeated."""
    return int(_setting("CTRAY_S3_RETRIES", 2.0))


def credentials() -> S3Credential:
    """Keys as botocore finds them, asked for again after ten minutes: short-lived ones expire."""
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
        options["credential_provider"] = credentials
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


def environment() -> tuple[str | None, ...]:
    """What clients depend on; they are kept while it stays."""
    return tuple(os.environ.get(name) for name in _ENVIRONMENT)


def _keys() -> Any:
    """Keys as botocore finds them now, or found them half a minute ago at most."""
    return _found_keys(environment(), int(time.monotonic() / _KEYS_AGE_S))


@lru_cache(maxsize=2)
def _found_keys(environment: tuple[str | None, ...], period: int) -> Any:
    # Ten milliseconds a session: a catalog of ten thousand volumes opens as many clients.
    import botocore.session

    return botocore.session.get_session().get_credentials()


def _endpoint() -> str | None:
    """URL of the store; `ConfigError` for what is no URL, on which the client would crash."""
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


@contextmanager
def _within_the_object() -> Iterator[None]:
    """Tell an object that ends too early, which asking again does not mend, from a failing store.

    Servers answer a range beyond the end, or any of an empty object, with status 416.
    """
    try:
        yield
    except Exception as error:
        if "InvalidRange" in str(error) or "416 Range Not Satisfiable" in str(error):
            # Without its cause, which would pass for a store that fails.
            raise ValueError("the object ends before the range that was asked for") from None
        raise


class _Repeats:
    """Decides on the repeats that obstore leaves out, within the same time.

    It repeats no POST that was lost on the way, since it may have been done; ctray's are deletions,
    and doing one twice does no harm. Nor does it repeat an answer whose body broke off when that
    tells of an error or is a listing.
    """

    def __init__(self) -> None:
        self._left = retries()
        self._until = time.monotonic() + timeout_s() * (self._left + 1)

    def has(self, error: Exception) -> bool:
        """Whether what failed with `error` is to be tried once more."""
        from obstore.exceptions import GenericError

        left_out = "body error" in str(error) or "performing POST" in str(error)
        self._left -= 1
        in_time = self._left >= 0 and time.monotonic() < self._until
        return left_out and in_time and isinstance(error, GenericError)


def _repeated(call: Callable[[], Result]) -> Result:
    """Result of `call`, with `_Repeats`."""
    repeats = _Repeats()
    while True:
        try:
            return call()
        except Exception as error:
            if not repeats.has(error):
                raise


def _setting(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} is no number") from error
    if value < 0:
        raise ConfigError(f"{name}={text} is negative")
    return value
