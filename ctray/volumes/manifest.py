"""The manifest of a volume: the SHA-256 of every stored object, in the format of `sha256sum`.

`0/ctray.sha256` in a crop's folder has one line per object, `<SHA-256>  <path>`, sorted by path,
for all levels and everything else in the group. In that folder, ``sha256sum -c 0/ctray.sha256``
checks it. The checksum of a crop is the SHA-256 of this file, so a check unpacks no voxels. The
group's metadata hold that checksum and are written last.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

from ctray.core.errors import InvalidVolumeError, NotFoundError
from ctray.core.parallel import BYTES_IN_FLIGHT, bounded_map
from ctray.storage import store
from ctray.volumes.metadata import UNFINISHED

# In the folder of an array: zarr warns of files beside the arrays of a group.
MANIFEST = "0/ctray.sha256"
_NOT_LISTED = {MANIFEST, UNFINISHED, "zarr.json", ".zgroup", ".zattrs", ".zmetadata"}
_MAX_THREADS = 16
_ZARR_V2 = {".zarray", ".zattrs", ".zgroup"}


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the concatenated `parts`, in hexadecimal."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def write_manifest(url: str, known: Mapping[str, str]) -> str:
    """Write the manifest of the volume at `url` and return its checksum.

    Parameters
    ----------
    url
        Group of the volume, complete except for its metadata.
    known
        Digests by path of objects that this process wrote; other objects are read back.
    """
    read_back = {path: size for path, size in _listed(url).items() if path not in known}
    text = _text({**known, **_digests(url, read_back)})
    store.write_bytes(store.join(url, MANIFEST), text)
    return _checksum(text)


def stored_checksum(url: str) -> str:
    """Checksum of the objects now stored below `url`; an intact volume has its own checksum."""
    return _checksum(_text(_digests(url, _listed(url))))


def differences(url: str, checksum: str, bytes_in_flight: int = BYTES_IN_FLIGHT) -> Iterator[str]:
    """Compare the store with the manifest at `url`; yield one line for each difference.

    Parameters
    ----------
    url
        Group of a volume with a manifest.
    checksum
        Expected checksum of the manifest itself.
    bytes_in_flight
        Bound of the bytes held in memory.
    """
    try:
        text = store.read_bytes(store.join(url, MANIFEST))
    except NotFoundError:
        yield f"{MANIFEST} is missing"
        return
    if _checksum(text) != checksum:
        yield f"{MANIFEST} is not the one that was committed"
        return
    expected = _parse(url, text)
    found = _listed(url)
    for path in sorted(found.keys() - expected.keys()):
        yield f"{path} does not belong to it"
    now = _digests(
        url, {path: size for path, size in found.items() if path in expected}, bytes_in_flight
    )
    for path, told in expected.items():
        if now.get(path) is None:
            yield f"{path} is missing"
        elif now[path] != told:
            yield f"{path} has changed"


def _listed(url: str) -> dict[str, int]:
    """Path and size of the objects that a manifest lists; hidden files are skipped."""
    return {
        path: size
        for path, size in store.list_tree(url)
        if path not in _NOT_LISTED
        and (not (name := path.rpartition("/")[2]).startswith(".") or name in _ZARR_V2)
    }


def _digests(
    url: str, sizes: Mapping[str, int], bytes_in_flight: int = BYTES_IN_FLIGHT
) -> dict[str, str | None]:
    """Digests of objects by path; None for a missing object."""

    def one(path: str) -> str | None:
        try:
            return digest(store.read_view(store.join(url, path)))
        except NotFoundError:
            return None

    largest = max(sizes.values(), default=1)
    found = bounded_map(
        one,
        sizes,
        bytes_per_item=largest,
        bytes_in_flight=bytes_in_flight,
        max_threads=_MAX_THREADS,
    )
    return dict(zip(sizes, found, strict=True))


def _text(digests: Mapping[str, str | None]) -> bytes:
    lines = [f"{digests[path]}  {path}\n" for path in sorted(digests)]
    return "".join(lines).encode()


def _parse(url: str, text: bytes) -> dict[str, str]:
    try:
        pairs = [line.split("  ", 1) for line in text.decode().splitlines()]
        return {path: found for found, path in pairs}
    except ValueError as error:
        raise InvalidVolumeError(f"{url}/{MANIFEST} is damaged: {error}") from error


def _checksum(text: bytes) -> str:
    return f"sha256:{digest(text)}"
