"""Which axes of an array are z, y and x: by their names in the metadata, else by their order.

An array may store its axes in any order. An array without three axes in space is no volume.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ctray.core.errors import InvalidVolumeError, NoVolumeError
from ctray.core.geometry import AXES, Triple, as_triple
from ctray.volumes.voxel_metadata import shown

# Names as OME-NGFF, xarray, scikit-image and dask write them.
_ROLES = {
    **dict.fromkeys(("z", "depth", "plane", "planes", "pln", "slice", "slices"), "z"),
    **dict.fromkeys(("y", "height", "row", "rows"), "y"),
    **dict.fromkeys(("x", "width", "col", "cols", "column", "columns"), "x"),
    **dict.fromkeys(("t", "time", "frame", "frames"), "t"),
    **dict.fromkeys(("c", "ch", "channel", "channels", "band", "bands"), "c"),
    **dict.fromkeys(("rgb", "rgba", "color", "colour", "colors", "sample", "samples"), "colour"),
    **dict.fromkeys(
        ("angle", "angles", "theta", "rotation", "rotation_angle", "projection", "projections"),
        "angle",
    ),
}
# Names that programs give to axes without a name: dim_0, axis1, phony_dim_2.
_NO_NAME = re.compile(r"(dim|axis|d|phony_dim)[_-]?\d+")
_MAX_AXES = 5
# Number of colours, without and with opacity; in practice no extent of a volume.
_COLOURS = (3, 4)
_SMALLEST_PICTURE = 16


def spatial_axes(
    url: str,
    shape: Sequence[int],
    names: Sequence[str | None] | None,
    *,
    coloured: bool = False,
) -> Triple:
    """Positions of z, y and x among the axes of an array; the others have length 1.

    Parameters
    ----------
    url
        The array; it leads the messages.
    shape
        Its extent, axes in their stored order.
    names
        Names of its axes from the metadata; None for an axis without a name.
    coloured
        Whether metadata say that channels are red, green and blue.

    Raises
    ------
    NoVolumeError
        If the array is sound but no volume: fewer than three axes, a colour image, projections.
    InvalidVolumeError
        If ctray does not read it: several times or channels, ambiguous names, no voxels.
    """
    if len(shape) < 3:
        raise NoVolumeError(f"{url}: {len(shape)}D array of shape {_text(shape)}, no volume")
    if len(shape) > _MAX_AXES:
        raise InvalidVolumeError(f"{url}: {len(shape)}D array; ctray reads z, y, x")
    roles = _roles(url, shape, names)
    for role, n in zip(roles, shape, strict=True):
        if n == 0:
            raise InvalidVolumeError(f"{url}: axis {role} of shape {_text(shape)} has no voxels")
    if names is None or not any(_has_name(name) for name in names):
        return _by_place(url, shape)
    _refuse_others(url, shape, roles, coloured)
    return as_triple([roles.index(axis) for axis in AXES], "axes")


def axis_role(name: str | None) -> str | None:
    """Meaning of a name: z, y, x, t, c, colour, angle, or the name; None for no name."""
    if not _has_name(name):
        return None
    plain = str(name).strip().lower()
    return _ROLES.get(plain, shown(plain))


def _has_name(name: str | None) -> bool:
    plain = (name or "").strip().lower()
    return bool(plain) and not _NO_NAME.fullmatch(plain)


def _roles(url: str, shape: Sequence[int], names: Sequence[str | None] | None) -> list[str]:
    """Role of every axis; axes without a name get the unused ones of z, y, x, in this order."""
    if names is not None and len(names) != len(shape):
        raise InvalidVolumeError(
            f"{url}: its metadata name {len(names)} axes, and the array of shape {_text(shape)} "
            f"has {len(shape)}; mend the names"
        )
    given = [axis_role(name) for name in names or [None] * len(shape)]
    if not any(given):
        return list(("t", "c", *AXES)[-len(shape) :])
    for role in given:
        if role is not None and given.count(role) > 1:
            raise InvalidVolumeError(
                f"{url}: two axes of shape {_text(shape)} are named {role}; mend the names"
            )
    left = [axis for axis in AXES if axis not in given]
    nameless = [position for position, role in enumerate(given) if role is None]
    if nameless and len(nameless) != len(left):
        raise InvalidVolumeError(
            f"{url}: axes {_listed(names)} of shape {_text(shape)} leave open which are "
            f"{', '.join(left) or 'the others'}; name them all"
        )
    return [role if role is not None else left.pop(0) for role in given]


def _refuse_others(url: str, shape: Sequence[int], roles: list[str], coloured: bool) -> None:
    """Refuse named axes unless three are z, y, x and all others have length 1."""
    text = f"axes {', '.join(roles)} of shape {_text(shape)}"
    longer = {role: n for role, n in zip(roles, shape, strict=True) if role not in AXES and n != 1}
    if "angle" in longer:
        raise NoVolumeError(f"{url}: {text}: projections, not reconstructed")
    # Three or four interleaved channels, as the last axis, are colours; other channels may not be.
    last_is_colour = roles[-1] == "c" and longer.get("c") in _COLOURS
    if "colour" in longer or ("c" in longer and (coloured or last_is_colour)):
        raise NoVolumeError(f"{url}: {text}: a colour image, no grey values")
    missing = [axis for axis in AXES if axis not in roles]
    if missing and longer.keys() <= {"t", "c"} and "x" in roles and "y" in roles:
        raise NoVolumeError(f"{url}: {text}: no z axis, a 2D image or a series of them")
    if missing:
        raise InvalidVolumeError(
            f"{url}: {text}; none is named {' or '.join(missing)}; ctray reads z, y, x, "
            "so name the axes in space that way"
        )
    if longer:
        role, n = next(iter(longer.items()))
        raise InvalidVolumeError(
            f"{url}: {text}: axis {role} has length {n}; ctray reads one time and one channel; "
            "split the array"
        )


def _by_place(url: str, shape: Sequence[int]) -> Triple:
    """Positions of z, y, x among axes without names: in this order, single axes left out."""
    *inner, last = shape
    if last in _COLOURS and min(inner[-2:]) >= _SMALLEST_PICTURE:
        raise NoVolumeError(
            f"{url}: array of shape {_text(shape)}, whose last axis looks like colours; where it "
            "is a volume, name its axes z, y, x"
        )
    kept = list(range(len(shape)))
    while len(kept) > 3 and any(shape[position] == 1 for position in kept):
        kept.remove(next(position for position in kept if shape[position] == 1))
    if len(kept) > 3:
        raise InvalidVolumeError(
            f"{url}: array of shape {_text(shape)} has {len(kept)} axes longer than 1, without "
            "names; ctray reads z, y, x; split the array"
        )
    return as_triple(kept, "axes")


def _text(shape: Sequence[int]) -> str:
    return str(tuple(shape))


def _listed(names: Sequence[str | None] | None) -> str:
    return ", ".join(shown(str(name)) for name in names or ())
