"""Listings on S3 page by page: bounded, whatever a server answers.

obstore gives the listing of one folder as a whole or never; these pages come from botocore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from ctray.core.errors import StorageError

# Name, whether a folder, and size in bytes.
Listed = tuple[str, bool, int | None]
# A million entries in one folder.
_MAX_PAGES = 1000


def folder_entries(
    url: str, bucket: str, prefix: str, options: Mapping[str, Any], environment: tuple[Any, ...]
) -> list[Listed]:
    """Entries directly below `prefix`.

    Parameters
    ----------
    url
        What is listed, for errors.
    bucket, prefix
        The same as S3 takes it; `prefix` ends with a slash or is empty.
    options
        Options of an s3fs file system: endpoint, region, time-outs, whether without keys.
    environment
        What the options were made of: the client is kept while it stays.

    Raises
    ------
    StorageError
        If the listing does not come to an end.
    """
    pages = _client(_Options(options, environment)).get_paginator("list_objects_v2")
    answers = pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    entries = (_entries(answer, prefix) for answer in answers)
    return [entry for page in bounded_pages(url, entries, _MAX_PAGES) for entry in page]


def bounded_pages(url: str, pages: Iterable[Sequence[Any]], most: int) -> Iterator[Sequence[Any]]:
    """Pages of a listing, as far as they are what a listing can be.

    A gateway that loses its place would otherwise be asked for ever.

    Raises
    ------
    StorageError
        If a page comes twice, or more than `most` come.
    """
    last: Sequence[Any] = ()
    for number, page in enumerate(pages, start=1):
        if number > most or (page and page == last):
            raise StorageError(
                f"{url}: its listing does not end (page {number}); the store or a gateway before "
                "it is broken; try a folder further down"
            )
        yield page
        last = page


def _entries(answer: Mapping[str, Any], prefix: str) -> list[Listed]:
    """Entries of one page; a folder whose keys have two slashes in a row has an empty name."""
    folders: list[Listed] = [
        (item["Prefix"][len(prefix) :].rstrip("/"), True, None)
        for item in answer.get("CommonPrefixes", ())
    ]
    return folders + [
        (item["Key"][len(prefix) :], False, int(item["Size"]))
        for item in answer.get("Contents", ())
        # Some tools put an empty object with the folder's own name into it.
        if item["Key"] != prefix
    ]


class _Options:
    """Options of a client, equal where the environment that made them is."""

    def __init__(self, options: Mapping[str, Any], environment: tuple[Any, ...]) -> None:
        self.options = options
        self._key = (environment, bool(options.get("anon")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Options) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=8)
def _client(given: _Options) -> Any:
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    options = given.options
    unsigned = {"signature_version": UNSIGNED} if options.get("anon") else {}
    return botocore.session.get_session().create_client(
        "s3",
        endpoint_url=options["endpoint_url"],
        region_name=options["client_kwargs"]["region_name"],
        config=Config(**options["config_kwargs"], **unsigned),
    )
