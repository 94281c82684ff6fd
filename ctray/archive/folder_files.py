"""What the files of one folder are: volumes, stacks of slices, or formats that are not read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from ctray.archive.findings import Candidate, Findings, OtherFile
from ctray.archive.name_filter import NameFilter
from ctray.core.errors import InvalidVolumeError
from ctray.formats.registry import Format, format_of
from ctray.formats.slices.dicom import DicomSource
from ctray.formats.slices.stacks import NumberedStack, group_numbered
from ctray.formats.zarr import ZarrSource
from ctray.storage import store
from ctray.storage.zipped import zip_url


def judge_files(
    url: str,
    path: tuple[str, ...],
    names: Sequence[str],
    wanted: NameFilter,
    findings: Findings,
    *,
    alone: bool,
) -> None:
    """Add the files `names` of the folder `url` to `findings`; TIFFs are judged elsewhere.

    Parameters
    ----------
    url, path
        The folder, and its names from the archive's folder down.
    names
        File names that `format_of` knows.
    wanted
        Patterns of excluded names.
    findings
        Receives candidates, other files and excluded paths.
    alone
        Whether the folder holds no TIFFs: its only stack then has the name of the folder.
    """
    slices: dict[Format, list[str]] = defaultdict(list)
    for name in names:
        known = format_of(name)
        assert known is not None
        if known.is_sliced or known.slices is not None:
            slices[known].append(name)
        elif wanted.is_excluded((*path[1:], name)):
            findings.excluded.append("/".join((*path[1:], name)))
        else:
            _judge_file(store.join(url, name), (*path, name), known, findings)
    stacks = [(known, stack) for known, some in slices.items() for stack in _stacks(known, some)]
    own_name = alone and len(stacks) == 1
    for known, stack in stacks:
        if wanted.is_excluded((*path[1:], stack.names[0])):
            findings.excluded.append("/".join((*path[1:], stack.pattern)))
            continue
        inner = path if own_name else (*path, stack.stem or stack.pattern)
        where = store.join(url, stack.pattern)
        if known.slices is not None and stack.is_long:
            reason = None if stack.problem is None else f"{where}: {stack.problem}"
            findings.candidates.append(
                Candidate(url=where, path=inner, kind=known.slices.kind, reason=reason)
            )
        else:
            findings.others.append(OtherFile(format_name=known.name, url=where, path=inner))


def _judge_file(url: str, path: tuple[str, ...], known: Format, findings: Findings) -> None:
    reason = None
    if known.file is ZarrSource:
        try:
            url = zip_url(url)
        except InvalidVolumeError as error:
            reason = str(error)
    if known.file is not None:
        findings.candidates.append(
            Candidate(url=url, path=path, kind=known.file.kind, reason=reason)
        )
    else:
        findings.others.append(
            OtherFile(format_name=known.name, url=url, path=path, needs_header=known.needs_header)
        )


def _stacks(known: Format, names: Sequence[str]) -> list[NumberedStack]:
    """Stacks of slices that have enough files."""
    if known.slices is DicomSource:
        # The files state their order; many programs name them by meaningless numbers.
        suffix = names[0].rpartition(".")[2]
        return [NumberedStack(names=tuple(sorted(names)), pattern=f"*.{suffix}")]
    return [stack for stack in group_numbered(names) if len(stack.names) >= known.min_files]
