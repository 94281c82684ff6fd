"""Objects on S3, through obstore.

obstore moves voxels several times faster than s3fs, and its waits are bounded: a put by s3fs to a
frozen server never returns, whatever its time-outs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, TypeVar, cast

from fsspec.spec import AbstractBufferedFile
from tenacity import AsyncRetrying, Retrying
from zarr.storage import ObjectStore

from ctray.core.errors import ConfigError, NotFoundError
from ctray.storage.backend import Entry, ObjectInfo, Parts, holds
from ctray.storage.fsspec_backend import caching
from ctray.storage.s3_client import client, repeat_policy
from ctray.storage.s3_listing import bounded_pages, folder_entries

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode
    from obstore.store import S3Store
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest

Result = TypeVar("Result")

# A hundred million objects: chunks of a volume.
_MAX_PAGES = 100_000


class S3Backend:
    """Objects in buckets; see `ctray.storage.backend.Backend`."""

    def open(self, url: str, *, dense: bool) -> IO[bytes]:
        """Open an object with a cache."""
        file = _S3File(None, url, "rb", size=self.stat(url).size, **caching(dense=dense))
        return cast("IO[bytes]", file)

    def read(self, url: str, check: Callable[[int], None] | None = None) -> memoryview:
        """Read a whole object without a copy, which would cost a third of checking it."""
        import obstore

        bucket, key = _split(url)

        def fetch() -> memoryview:
            found = obstore.get(client(bucket), key)
            if check is not None:
                check(found.meta["size"])
            return memoryview(found.bytes())

        return _repeated(fetch)

    def read_ranges(self, url: str, ranges: Sequence[tuple[int, int]]) -> list[memoryview]:
        """Read byte ranges, many at once."""
        import obstore

        bucket, key = _split(url)
        starts, stops = [a for a, _ in ranges], [b for _, b in ranges]
        with _within_the_object():
            # Not coalesced: the caller has already joined ranges that lie close together.
            found = _repeated(
                lambda: obstore.get_ranges(
                    client(bucket), key, starts=starts, ends=stops, coalesce=0
                )
            )
            return [memoryview(part) for part in found]

    def read_suffix(self, url: str, num_bytes: int) -> bytes:
        """Read the last bytes."""
        import obstore

        bucket, key = _split(url)
        options: GetOptions = {"range": {"suffix": num_bytes}}
        try:
            with _within_the_object():
                return _repeated(
                    lambda: bytes(obstore.get(client(bucket), key, options=options).bytes())
                )
        except Exception as error:
            # A server without suffix ranges sends the whole object, which obstore refuses.
            if "non-partial response" in str(error):
                return bytes(self.read(url)[-num_bytes:])
            raise

    def write(self, url: str, parts: Parts, *, durable: bool) -> None:
        """Put an object in one request."""
        import obstore

        bucket, key = _split(url)
        data = parts[0] if len(parts) == 1 else list(parts)
        _repeated(lambda: obstore.put(client(bucket), key, data, use_multipart=False))

    def create(self, url: str, data: bytes) -> bool:
        """Put an object on condition that it does not exist."""
        return self._put_if(url, data, "create")

    def replace(self, url: str, seen: bytes, data: bytes) -> bool:
        """Put an object on condition that its tag is unchanged."""
        import obstore

        bucket, key = _split(url)
        try:
            found = obstore.get(client(bucket), key)
        except FileNotFoundError:
            return False
        tag = found.meta["e_tag"]
        if bytes(found.bytes()) != seen:
            return False
        if tag is None:
            return self._put_if(url, data, "overwrite")
        # Ceph 16 accepts tags without their quotes only, and refuses others.
        return any(self._put_if(url, data, {"e_tag": spelt}) for spelt in (tag, tag.strip('"')))

    def delete_unchanged(self, url: str, seen: bytes) -> bool:
        """Compare, then delete: S3 has no conditional deletion.

        A writer who replaces the object between the two requests loses it.
        """
        if not holds(self, url, seen):
            return False
        self.delete(url)
        return True

    def stat(self, url: str) -> ObjectInfo:
        """Size and entity tag."""
        import obstore

        bucket, key = _split(url)
        return _info("", _repeated(lambda: obstore.head(client(bucket), key)))

    def exists(self, url: str) -> bool:
        """Whether an object exists at `url` or below it."""
        if _split(url)[1]:
            with suppress(FileNotFoundError):
                self.stat(url)
                return True
        return next(self.tree(url), None) is not None

    def list(self, url: str) -> list[Entry]:
        """Entries directly below `url`."""
        bucket, key = _split(url)
        found = list(folder_entries(url, bucket, f"{key}/" if key else ""))
        # S3 has no empty folders, but a bucket may be empty.
        if not found and key:
            what = "a file, no folder" if self.exists(url) else "nothing; check the URL"
            raise NotFoundError(f"{url} is {what}")
        return found

    def tree(self, url: str) -> Iterator[ObjectInfo]:
        """All objects below `url`, by name."""
        below = f"{_split(url)[1]}/".removeprefix("/")
        for item in _listing(url):
            yield _info(item["path"].removeprefix(below), item)

    def delete(self, url: str) -> None:
        """Delete one object; nothing happens if it does not exist."""
        import obstore

        bucket, key = _split(url)
        _repeated(lambda: obstore.delete(client(bucket), [key]))

    def delete_tree(self, url: str) -> None:
        """Delete every object below `url`."""
        import obstore

        keys = [item["path"] for item in _listing(url)]
        if keys:
            _repeated(lambda: obstore.delete(client(_split(url)[0]), keys))

    def zarr_store(self, url: str, *, read_only: bool) -> ObjectStore[S3Store]:
        """Zarr store over a client."""
        return _VoxelStore(client(*_split(url)), read_only=read_only)

    def _put_if(self, url: str, data: bytes, mode: PutMode) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        bucket, key = _split(url)
        # The refused put may have succeeded before, with its answer lost: the content decides.
        with suppress(AlreadyExistsError, PreconditionError):
            obstore.put(client(bucket), key, data, mode=mode, use_multipart=False)
        return holds(self, url, data)


class _VoxelStore(ObjectStore["S3Store"]):
    """Zarr store over a client, with the repeats of this module."""

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Fetch one object or a part of it; None if it does not exist."""
        return await AsyncRetrying(**repeat_policy())(super().get, key, prototype, byte_range)


class _S3File(AbstractBufferedFile):  # type: ignore[misc]
    """File for libraries that need one; fetches what its cache does not hold."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return bytes(S3Backend().read_ranges(self.path, [(start, end)])[0])


def _split(url: str) -> tuple[str, str]:
    """Bucket and key of an ``s3://`` URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{url} names no bucket; write s3://bucket/key")
    return bucket, key


def _listing(url: str) -> Iterator[ObjectMeta]:
    import obstore

    bucket, key = _split(url)
    pages = iter(obstore.list(client(bucket), prefix=key or None))
    to_the_end = iter(lambda: _repeated(lambda: next(pages, None)), None)
    for page in bounded_pages(url, to_the_end, _MAX_PAGES):
        yield from page


def _info(path: str, item: ObjectMeta) -> ObjectInfo:
    version = item["e_tag"] or str(item["last_modified"])
    return ObjectInfo(path=path, size=int(item["size"]), version=version)


def _repeated(call: Callable[[], Result]) -> Result:
    return Retrying(**repeat_policy())(call)


@contextmanager
def _within_the_object() -> Iterator[None]:
    """Raise `ValueError` for an object that ends too early: asking again would not help.

    Servers answer a range beyond the end, and any range of an empty object, with status 416.
    """
    try:
        yield
    except Exception as error:
        if "InvalidRange" in str(error) or "416 Range Not Satisfiable" in str(error):
            # Without its cause, which would look like a store that fails.
            raise ValueError("the object ends before the requested range") from None
        raise
