"""Listings on S3 page by page: bounded, whatever a server answers.

obstore gives the listing of one folder whole or never; these pages come from botocore.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ctray.core.errors import StorageError
from ctray.storage.backend import Entry
from ctray.storage.s3_client import listing_client
from ctray.storage.urls import join

# A million entries in one folder.
_MAX_PAGES = 1000


def folder_entries(url: str, bucket: str, prefix: str) -> Iterator[Entry]:
    """Entries directly below `prefix`.

    Parameters
    ----------
    url
        The folder; it leads the message of an error.
    bucket, prefix
        The same as S3 takes it; `prefix` ends with a slash or is empty.

    Raises
    ------
    StorageError
        If the listing does not end.
    """
    pages = listing_client().get_paginator("list_objects_v2")
    answers = pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/")
    found = (_entries(url, answer, prefix) for answer in answers)
    for page in bounded_pages(url, found, _MAX_PAGES):
        yield from page


def bounded_pages(url: str, pages: Iterable[Sequence[Any]], most: int) -> Iterator[Sequence[Any]]:
    """Pages of a listing; a gateway that loses its place would otherwise be asked for ever.

    Raises
    ------
    StorageError
        If a page comes twice, or more than `most` pages come.
    """
    last: Sequence[Any] = ()
    for number, page in enumerate(pages, start=1):
        if number > most or (page and page == last):
            raise StorageError(
                f"{url}: the listing does not end (page {number}); the store or a gateway in front "
                "of it is broken; try a folder further down"
            )
        yield page
        last = page


def _entries(url: str, answer: Mapping[str, Any], prefix: str) -> list[Entry]:
    """Entries of one page. A folder whose keys have two slashes in a row has an empty name."""
    start = len(prefix)
    names = [item["Prefix"][start:].rstrip("/") for item in answer.get("CommonPrefixes", ())]
    folders = [Entry(url=join(url, name), name=name, is_dir=True, size=None) for name in names]
    return folders + [
        Entry(
            url=join(url, item["Key"][start:]),
            name=item["Key"][start:],
            is_dir=False,
            size=int(item["Size"]),
            version=item.get("ETag") or str(item["LastModified"]),
        )
        for item in answer.get("Contents", ())
        # Some tools write an empty object with the folder's own name.
        if item["Key"] != prefix
    ]
