"""Which dataset of an HDF5 file is the volume, or why only the user can tell."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import h5py

from ctray.core.errors import InvalidVolumeError, NotReconstructedError, NoVolumeError
from ctray.formats.hdf5.axes import Axes, axes_of
from ctray.formats.hdf5.files import LOST, Hdf5Files
from ctray.formats.hdf5.links import Place, resolve, text_of
from ctray.formats.hdf5.programs import httomo_axes, refuse_imaris
from ctray.formats.hdf5.roles import Meaning, Role, meaning_of, role_in
from ctray.formats.hdf5.tree import Array, Broken, Group, Tree, note_origin, read_array
from ctray.formats.hdf5.virtual import note_ids, sources_of

# Detectors and master files number their datasets: data_000001, data_000002.
_NUMBERED = re.compile(r"^data_(?P<number>\d{3,})$")
_SHOWN = 8
# Roles that may be the volume, the most likely first.
_TIERS: tuple[Role, ...] = ("reconstruction", "volume", "preview")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The volume of a file.

    Parameters
    ----------
    path
        Value of `--dataset` that makes the same choice.
    arrays
        Its datasets: one, or several that follow one another along the first axis.
    axes
        What the file states about its axes.
    notes
        Other 3D datasets that are not read.
    """

    path: str
    arrays: tuple[Array, ...]
    axes: Axes | None = None
    notes: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True, eq=False)
class _Candidate:
    """A dataset, a series of numbered datasets, or a broken link."""

    path: str
    meaning: Meaning
    arrays: tuple[Array, ...] = ()
    axes: Axes | None = None
    error: str | None = None
    is_signal: bool = False

    @property
    def label(self) -> str:
        if not self.arrays:
            return f"{self.path} (a broken link)"
        first = self.arrays[0]
        if len(self.arrays) == 1 and self.path == first.path:
            return first.label
        return f"{self.path} ({len(self.arrays)} datasets like {first.label})"


def choose(files: Hdf5Files, tree: Tree, dataset: str | None = None) -> Choice:
    """Choose the dataset that is the volume.

    Parameters
    ----------
    files, tree
        The file.
    dataset
        Path that the user gave. Without one, the metadata decide: the attribute `default` first,
        then reconstructions before other 3D data. Nothing is guessed from sizes.

    Raises
    ------
    NotReconstructedError
        If the file or the named dataset holds only projections.
    NoVolumeError
        If the file holds no 3D dataset with grey values.
    InvalidVolumeError
        If several datasets may be the volume, if the chosen one cannot be read, or if the named
        one does not exist.
    """
    if dataset is not None:
        return _named(files, tree, dataset)
    refuse_imaris(files, tree)
    candidates = _candidates(files, tree)
    files.forget()
    plotted = _default(files, tree, candidates)
    if plotted is not None and plotted.meaning.role in ("reconstruction", "volume"):
        return _checked(plotted, candidates)
    if not tree.is_complete:
        raise InvalidVolumeError(
            f"{files.url}: too many objects to search for the volume; name it with --dataset"
        )
    for role in _TIERS:
        found = _best_of_tier(candidates, role)
        if len(found) == 1:
            return _checked(found[0], candidates)
        if found:
            note_ids(files, [array.place for c in found for array in c.arrays])
            files.part_ids.clear()  # A dataset that is linked here may be a volume elsewhere.
            raise InvalidVolumeError(_question(files, found))
    raise _no_volume(files, tree, candidates)


def _best_of_tier(candidates: Sequence[_Candidate], role: Role) -> list[_Candidate]:
    found = [c for c in candidates if c.meaning.role == role]
    # The target of a broken link is unknown, so existing datasets are preferred.
    if role != "reconstruction":
        found = [c for c in found if c.error is None] or found
    has_raw = any(c.meaning.role == "projections" and not c.error for c in candidates)
    if role == "volume" and has_raw and all(c.error for c in found):
        return []
    found = _without_lower_levels(found)
    return [c for c in found if c.is_signal] or found


def _checked(chosen: _Candidate, candidates: Sequence[_Candidate] = ()) -> Choice:
    """The choice, if it can be read, with a note on other 3D datasets."""
    if chosen.error is not None:
        raise InvalidVolumeError(chosen.error)
    others = [c for c in candidates if c.meaning.role in _TIERS and c.arrays and c is not chosen]
    others = [c for c in others if not _is_level_of(c, chosen)]
    shown = ", ".join(c.label for c in others[:_SHOWN])
    notes = (f"other 3D datasets in the file are not read: {shown}",) if others else ()
    return Choice(path=chosen.path, arrays=chosen.arrays, axes=chosen.axes, notes=notes)


def _question(files: Hdf5Files, found: Sequence[_Candidate]) -> str:
    shown = ", ".join(c.label for c in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    first = next((c.path for c in found if c.error is None), found[0].path)
    return (
        f"{files.url}: several 3D datasets may be the volume ({shown}{more}); name one with "
        f"--dataset, such as --dataset {first}"
    )


def _no_volume(files: Hdf5Files, tree: Tree, candidates: Sequence[_Candidate]) -> NoVolumeError:
    raw = [c for c in candidates if c.meaning.role == "projections"]
    if raw:
        first = raw[0]
        shape = " x ".join(map(str, first.arrays[0].shape or ())) if first.arrays else "?"
        _note_parts(files, raw)
        return NotReconstructedError(
            f"{files.url}: projections, not reconstructed: {first.path} ({shape}; "
            f"{first.meaning.why}); give the reconstruction"
        )
    for role, what in (
        ("colour", "colour images only"),
        ("labels", "masks or labels only"),
        ("calibration", "flat or dark fields only"),
        ("other", "3D data with axes other than space only"),
    ):
        found = [c for c in candidates if c.meaning.role == role]
        if found:
            shown = ", ".join(c.label for c in found[:_SHOWN])
            return NoVolumeError(
                f"{files.url}: no 3D dataset with grey values, {what} ({shown}); name one with "
                "--dataset to read it anyway"
            )
    return NoVolumeError(
        f"{files.url}: no 3D dataset with numbers inside; the file holds {_inventory(tree)}"
    )


def _note_parts(files: Hdf5Files, raw: Iterable[_Candidate]) -> None:
    """Note that files of frames are not volumes, even if their own metadata do not say so."""
    for array in (array for c in raw for array in c.arrays):
        note_ids(files, (array.place, *sources_of(files, array.place)))


def _inventory(tree: Tree) -> str:
    """Datasets of a file, as text."""
    found = [array.label for array in tree.arrays.values()]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more if found else "no datasets"


def _named(files: Hdf5Files, tree: Tree, dataset: str) -> Choice:
    item = tree.at(files, dataset)
    if isinstance(item, Group):
        series = _series(item, lambda array: _candidate(files, tree, array))
        if series is not None:
            _refuse_raw(files, series)
            return _checked(series)
    if item is None:
        place = resolve(files, Place(url=files.url, path="/"), dataset)
        data = files.item(place.url, place.path) if place is not None else None
        if place is not None and isinstance(data, h5py.Dataset):
            # The walk ended before it reached this dataset.
            item = read_array(place, dataset, data)
    if not isinstance(item, Array):
        what = "is a group" if item is not None else "does not exist"
        raise InvalidVolumeError(
            f"{files.url}: dataset {dataset!r} {what}; the file holds {_inventory(tree)}"
        )
    if item.problem is not None:
        raise InvalidVolumeError(
            f"{files.url}:{item.path}: {item.problem}; copy it into a plain dataset"
        )
    found = _candidate(files, tree, item)
    if found is None:
        # Not three axes, or no numbers: the source raises the error.
        return Choice(path=item.path, arrays=(item,))
    _refuse_raw(files, found)
    if found.meaning.role == "colour":
        raise NoVolumeError(f"{files.url}:{item.path}: {found.meaning.why}, not grey values")
    return _checked(found)


def _refuse_raw(files: Hdf5Files, named: _Candidate) -> None:
    meaning = named.meaning
    if meaning.role == "projections" and meaning.certain:
        _note_parts(files, [named])
        raise NotReconstructedError(
            f"{files.url}:{named.path}: projections, not reconstructed ({meaning.why}); give the "
            "reconstruction"
        )


def _candidates(files: Hdf5Files, tree: Tree) -> list[_Candidate]:
    """Everything that may be a volume or is reported, with a series of datasets as one."""
    used = _parts_of_virtual(files, tree)
    arrays = [a for key, a in tree.arrays.items() if a.may_be_volume and key not in used]
    found = {id(a): c for a in arrays if (c := _candidate(files, tree, a)) is not None}
    series: list[_Candidate] = []
    for group in tree.groups.values():
        numbered = _series(group, lambda array: found.get(id(array)))
        if numbered is not None:
            series.append(numbered)
    in_series = {id(array) for c in series for array in c.arrays}
    rest = [c for key, c in found.items() if key not in in_series]
    names = {c.path for c in series}
    broken = [
        _broken(link)
        for group in tree.groups.values()
        for link in group.broken.values()
        if not (_NUMBERED.match(link.path.rpartition("/")[2]) and link.home.path in names)
    ]
    return rest + series + broken


def _candidate(files: Hdf5Files, tree: Tree, array: Array) -> _Candidate | None:
    with contextlib.suppress(*LOST):
        # If this dataset is the volume, opening it raises the error.
        note_origin(files, array)
    httomo = httomo_axes(files, tree, array)
    axes = httomo or axes_of(files, array)
    meaning = meaning_of(array, axes, httomo)
    if meaning is None:
        return None
    error = None
    if array.problem is not None:
        error = f"{files.url}:{array.path}: {array.problem}; write it with a fixed shape"
    is_signal = any(
        text_of(group.attrs.get("signal")) == name or str(array.attrs.get("signal")) == "1"
        for name, group in array.homes
    )
    return _Candidate(
        path=array.path,
        meaning=meaning,
        arrays=(array,),
        axes=axes,
        error=error,
        is_signal=is_signal,
    )


def _broken(link: Broken) -> _Candidate:
    meaning = role_in(link.home, link.path.rpartition("/")[2]) or Meaning(role="volume")
    return _Candidate(path=link.path, meaning=meaning, error=link.error)


def _series(group: Group, candidate_of: Callable[[Array], _Candidate | None]) -> _Candidate | None:
    """Datasets data_000001, data_000002, ... of a group as one candidate; None without any."""
    numbers = {
        int(match["number"]): name
        for name in (*group.arrays, *group.broken)
        if (match := _NUMBERED.match(name)) is not None
    }
    if len(numbers) < 2:
        return None
    names = [numbers[n] for n in sorted(numbers)]
    arrays = [group.arrays[name] for name in names if name in group.arrays]
    if any(len(array.shape or ()) != 3 for array in arrays):
        return None
    meaning = None
    axes = None
    for array in arrays:
        found = candidate_of(array)
        if found is not None:
            meaning, axes = found.meaning, found.axes
            break
    if meaning is None and arrays:
        return None
    meaning = meaning or role_in(group, names[0]) or Meaning(role="volume")
    error = next((b.error for name, b in group.broken.items() if name in names), None)
    first, last = min(numbers), max(numbers)
    if error is None and last - first + 1 != len(numbers):
        gap = next(n for n in range(first, last) if n not in numbers)
        error = (
            f"{group.place.url}:{group.path}: dataset number {gap} of {names[0]} to {names[-1]} "
            "is missing; write the file again with all parts"
        )
    return _Candidate(
        path=group.path, meaning=meaning, arrays=tuple(arrays), axes=axes, error=error
    )


def _default(files: Hdf5Files, tree: Tree, candidates: Sequence[_Candidate]) -> _Candidate | None:
    """Candidate that the attributes `default` (of groups) and `signal` (of NXdata) lead to.

    NeXus manual, "Associating plottable data using attributes" (version 3 scheme).
    """
    group = tree.root
    for _ in range(8):
        name = text_of(group.attrs.get("default")) or text_of(group.attrs.get("signal"))
        if not name:
            return next((c for c in candidates if c.path == group.path), None)
        try:
            item = tree.at(files, name, group)
        except LOST:
            path = f"{group.path.rstrip('/')}/{name}"
            return next((c for c in candidates if c.error and path.startswith(c.path)), None)
        if isinstance(item, Array):
            return next((c for c in candidates if item in c.arrays), None)
        if not isinstance(item, Group):
            return None
        group = item
    return None


def _parts_of_virtual(files: Hdf5Files, tree: Tree) -> set[str]:
    """Datasets of the tree that virtual datasets of the tree consist of."""
    places = {(a.place.url, a.place.path): key for key, a in tree.arrays.items()}
    return {
        places[source.url, source.path]
        for array in tree.arrays.values()
        if array.is_virtual
        for source in sources_of(files, array.place)
        if (source.url, source.path) in places
    }


def _without_lower_levels(found: list[_Candidate]) -> list[_Candidate]:
    """Leave out the lower resolutions of a pyramid."""
    kept = []
    for candidate in found:
        if any(_is_level_of(candidate, other) for other in found if other is not candidate):
            continue
        kept.append(candidate)
    return kept


def _is_level_of(low: _Candidate, high: _Candidate) -> bool:
    """Whether the paths differ in one number, and the shapes by whole factors on two axes."""
    if len(low.arrays) != 1 or len(high.arrays) != 1:
        return False
    theirs, ours = (re.split(r"(\d+)", path) for path in (high.path, low.path))
    differ = [i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b]
    if len(theirs) != len(ours) or len(differ) != 1 or differ[0] % 2 == 0:
        return False
    if int(theirs[differ[0]]) >= int(ours[differ[0]]):
        return False
    large, small = high.arrays[0].shape or (), low.arrays[0].shape or ()
    if len(large) != len(small) or 0 in small:
        return False
    factors = [max(1, round(a / b)) for a, b in zip(large, small, strict=True)]
    fits = all(abs(b * f - a) < f for a, b, f in zip(large, small, factors, strict=True))
    return fits and sum(f > 1 for f in factors) >= 2
