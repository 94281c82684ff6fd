"""The files of a folder that are neither TIFF, HDF5 nor Zarr: volumes, and formats to tell of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ctray.archive.found import Findings, Found, NameFilter, OtherFile
from ctray.core.errors import InvalidVolumeError
from ctray.formats.names import MIN_PICTURES, Format, format_of
from ctray.formats.slices.stacks import NumberedStack, group_numbered
from ctray.storage import store
from ctray.storage.zipped import zip_url

# Two slices can be a pair of anything.
_MIN_SLICES = 3


def judge_others(
    url: str,
    path: tuple[str, ...],
    names: Sequence[str],
    asked: NameFilter,
    findings: Findings,
    *,
    alone: bool,
) -> None:
    """Add what `names` of the folder `url` are: volumes, other formats, or excluded.

    Parameters
    ----------
    names
        File names that `format_of` knows.
    alone
        Whether the folder holds no other volumes: its only stack is then called by its name.
    """
    slices: dict[Format, list[str]] = defaultdict(list)
    for name in names:
        known = format_of(name)
        assert known is not None
        if known.sliced:
            slices[known].append(name)
        elif asked.is_excluded((*path[1:], name)):
            findings.excluded.append("/".join((*path[1:], name)))
        else:
            _judge_file(store.join(url, name), (*path, name), known, findings)
    stacks = [(known, stack) for known, some in slices.items() for stack in _stacks(known, some)]
    own_name = alone and len(stacks) == 1
    for known, stack in stacks:
        if asked.is_excluded((*path[1:], stack.names[0])):
            findings.excluded.append("/".join((*path[1:], stack.pattern)))
            continue
        inner = path if own_name else (*path, stack.stem or stack.pattern)
        where = store.join(url, stack.pattern)
        if known.kind is not None and len(stack.names) >= _MIN_SLICES:
            reason = None if stack.problem is None else f"{where}: {stack.problem}"
            found = Found(url=where, path=inner, kind=known.kind, reason=reason)
            findings.volumes.append(found)
        else:
            findings.others.append(OtherFile(format_name=known.name, url=where, path=inner))


def _judge_file(url: str, path: tuple[str, ...], known: Format, findings: Findings) -> None:
    if known.kind == "zarr":
        try:
            found = Found(url=zip_url(url), path=path, kind="zarr")
        except InvalidVolumeError as error:
            found = Found(url=url, path=path, kind="zarr", reason=str(error))
        findings.volumes.append(found)
    elif known.kind is not None:
        findings.volumes.append(Found(url=url, path=path, kind=known.kind))
    else:
        other = OtherFile(format_name=known.name, url=url, path=path, bare=known.is_bare)
        findings.others.append(other)


def _stacks(known: Format, names: Sequence[str]) -> list[NumberedStack]:
    """Stacks of slices; of pictures only those that are too many to be figures."""
    if known.kind == "dicom":
        # Their order stands in the files; many programs name them by meaningless numbers.
        suffix = names[0].rpartition(".")[2]
        return [NumberedStack(names=tuple(sorted(names)), pattern=f"*.{suffix}")]
    stacks = group_numbered(names)
    return [s for s in stacks if not known.pictures or len(s.names) >= MIN_PICTURES]
