"""What each dataset of an HDF5 file is: reconstruction, projections, mask, colour image.

The evidence is what NeXus, Data Exchange and the programs of facilities write, never sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctray.formats.hdf5.axes import Axes, is_angle_name, words_of
from ctray.formats.hdf5.links import text_of
from ctray.formats.hdf5.tree import Array, Group

Role = Literal[
    "reconstruction", "volume", "preview", "projections", "calibration", "colour", "labels", "other"
]

# Application definitions of raw data (NeXus manual, "Application Definitions").
_RAW = frozenset(
    {"nxtomo", "nxtomophase", "nxmx", "nxxrot", "nxxbase", "nxsas", "nxptycho", "nxxlaue"}
)
_RECONSTRUCTED = frozenset({"nxtomoproc"})
_COLOURS = ("rgb", "rgba", "hsl", "hsla", "cmyk")
# In whole numbers, a side of 3 or 4 beside sides of at least this length is colour.
_COLOUR_MIN_SIDE = 16
_WORDS: dict[Role, str] = {
    "labels": "mask masks label labels labelled labeled segmentation segmentations segmented seg "
    "annotation annotations truth",
    "calibration": "flat flats flatfield flatfields dark darks darkfield darkfields white whites "
    "bright brights background",
    "preview": "preview previews thumbnail thumbnails thumb overview snapshot",
    "reconstruction": "recon recons reconstruction reconstructions reconstructed rec tomogram "
    "tomograms",
    "projections": "projection projections proj projs sinogram sinograms sino sinos radiograph "
    "radiographs",
    "volume": "volume volumes vol",
}


_BESIDE_CALIBRATION = (
    "data field fields frame frames image images pre post mean before after start end"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """Role of a dataset, the reason, and whether it is certain enough to overrule the user."""

    role: Role
    why: str = ""
    certain: bool = False


def meaning_of(array: Array, axes: Axes | None, httomo: Axes | None = None) -> Meaning | None:
    """Role of a dataset; None without the dimensions of a volume or a colour image.

    Parameters
    ----------
    array
        The dataset, with all groups that hold it.
    axes
        What the file states about its axes.
    httomo
        Axes of a reconstruction in httomo's layout; None for other files.
    """
    if array.shape is None or array.dtype is None:
        return _by_names(array) if array.problem and array.shape is None else None
    colour = _colour(array, axes)
    if colour is not None:
        return colour
    if len(array.sides) != 3:
        return None
    if array.is_enum or array.dtype.kind == "b":
        return Meaning(role="labels", why="it holds named values, not grey values", certain=True)
    if array.dtype.kind not in "iuf":
        return None
    if text_of(array.attrs.get("interpretation")) == "spectrum":
        return Meaning(role="other", why="its interpretation is spectrum", certain=True)
    if httomo is not None:
        return Meaning(role="reconstruction", why="httomo's layout")
    named = _by_names(array, axes)
    return named if named.certain else _raw(array, axes) or named


def name_role(name: str) -> Role | None:
    """Role according to a name alone; None if the name does not tell."""
    if name.lower().startswith("final_result"):
        # Savu's name for the last result of a process list.
        return "reconstruction"
    found = set(words_of(name))
    for role, known in _WORDS.items():
        hits = found.intersection(known.split())
        # "white_matter" is not a flat field.
        if hits and (role != "calibration" or found - hits <= set(_BESIDE_CALIBRATION.split())):
            return role
    return None


def role_in(group: Group, name: str) -> Meaning | None:
    """Role according to the names and definitions from a dataset upward, the nearest first."""
    role = name_role(name)
    if role is not None:
        return Meaning(role=role, why=f"named {name}")
    for above in group.above():
        if above.nx_class == "NXdetector":
            return Meaning(role="projections", why="data of an NXdetector", certain=True)
        definition = above.definition.lower()
        if definition in _RECONSTRUCTED:
            return Meaning(role="reconstruction", why=above.definition, certain=True)
        if definition in _RAW:
            return Meaning(role="projections", why=above.definition, certain=True)
        role = name_role(above.name)
        if role is not None:
            return Meaning(role=role, why=f"in {above.path}")
    return None


def _by_names(array: Array, axes: Axes | None = None) -> Meaning:
    found = [said for name, group in array.homes if (said := role_in(group, name)) is not None]
    for said in found:
        if said.certain:
            return said
    if found:
        return found[0]
    if axes is None or not _is_spatial(axes):
        return _angles_in_entry(array) or Meaning(role="volume")
    return Meaning(role="volume")


def _colour(array: Array, axes: Axes | None) -> Meaning | None:
    shape = array.shape or ()
    said = text_of(array.attrs.get("interpretation")) or ""
    stated = said.partition("-")[0] in _COLOURS and said.endswith("-image")
    true_colour = (text_of(array.attrs.get("IMAGE_SUBCLASS")) or "") == "IMAGE_TRUECOLOR"
    if (stated or true_colour) and any(n in (3, 4) for n in shape):
        return Meaning(role="colour", why="a colour image", certain=True)
    others = sorted(n for n in shape[:-1] if n > 1)
    if (
        shape[-1:] in ((3,), (4,))
        and not (axes is not None and _is_spatial(axes))
        and len(others) in (2, 3)
        and array.dtype is not None
        and array.dtype.kind in "iu"
        and array.dtype.itemsize <= 2
        and (len(others) == 3 or others[0] >= _COLOUR_MIN_SIDE)
    ):
        return Meaning(role="colour", why=f"its last axis of {shape[-1]} is colour", certain=True)
    return None


def _raw(array: Array, axes: Axes | None) -> Meaning | None:
    """Evidence beside a dataset that it is a raw scan, whatever its name."""
    shape = array.shape or ()
    if axes is not None and (angle := axes.first("angle", shape)) is not None:
        return Meaning(role="projections", why=f"its axis {angle} is an angle", certain=True)
    if axes is not None and (other := axes.first("other", shape)) is not None:
        return Meaning(role="other", why=f"its axis {other} is not spatial", certain=True)
    for name, group in array.homes:
        if name_role(name) is not None:
            continue
        if group.nx_class == "NXdetector":
            return Meaning(role="projections", why="data of an NXdetector", certain=True)
        flat = next((n for n, a in group.arrays.items() if _is_flat_of(n, a, array)), None)
        if flat is not None:
            return Meaning(role="projections", why=f"{flat} lies beside it", certain=True)
        if axes is not None and _is_spatial(axes):
            continue
        beside = _angles(group)
        for angles, count in beside.items():
            if count in shape:
                why = f"as many as {angles} has entries"
                return Meaning(role="projections", why=why, certain=True)
        if beside and words_of(group.name) == ["exchange"]:
            return Meaning(role="projections", why=f"{next(iter(beside))} lies beside it")
    return None


def _is_flat_of(name: str, flat: Array, array: Array) -> bool:
    shape = array.shape or ()
    return (
        flat is not array
        and name_role(name) == "calibration"
        and flat.shape is not None
        and len(flat.shape) >= 2
        and flat.shape[-2:] == shape[-2:]
    )


def _angles(group: Group) -> dict[str, int]:
    """Lists of angles or of image keys in a group, and their lengths."""
    return {
        name: array.shape[0]
        for name, array in group.arrays.items()
        if array.shape is not None
        and len(array.shape) == 1
        and array.shape[0] > 1
        and (is_angle_name(name) or name.startswith("image_key"))
    }


def _angles_in_entry(array: Array) -> Meaning | None:
    """Angles elsewhere in the same entry, as many as the dataset has images."""
    for _, group in array.homes:
        above = group.above()
        entry = next((g for g in above if g.nx_class in ("NXentry", "NXsubentry")), above[-1])
        todo = [entry]
        while todo:
            found = todo.pop()
            todo.extend(found.groups.values())
            for name, count in _angles(found).items():
                if count == (array.shape or (0,))[0]:
                    why = f"as many as {found.path}/{name} has entries"
                    return Meaning(role="projections", why=why)
    return None


def _is_spatial(axes: Axes) -> bool:
    return {"x", "y", "z"} <= set(axes.letters)
