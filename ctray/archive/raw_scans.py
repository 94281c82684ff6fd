"""Raw scans, by the names of their files: projections with dark and flat images beside them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

_TOKEN = re.compile(r"[A-Z]?[a-zäöüß]+|[A-Z]+(?![a-z])")
_DARK = frozenset(("dark", "darks", "darkfield", "darkend", "dar", "df", "di", "offset"))
_FLAT = frozenset(
    (
        *("flat", "flats", "flatfield", "ff", "ref", "refs", "reference", "references"),
        *("white", "whites", "bright", "brightfield", "openbeam", "ob", "io", "bg"),
        *("background", "gain"),
    )
)
_PROJECTION = frozenset(
    (
        *("proj", "projs", "projection", "projections", "radiograph", "radiographs", "radio"),
        *("radios", "sino", "sinos", "sinogram", "sinograms"),
    )
)
_RECONSTRUCTED = frozenset(
    (
        *("rec", "recs", "reco", "recon", "recons", "reconstruction", "reconstructed"),
        *("slice", "slices", "vol", "volume", "fbp", "gridrec", "sirt"),
    )
)
# Words that do not say what an image shows: ESRF writes refHST0000.
_NEUTRAL = frozenset(
    (
        *("image", "images", "img", "im", "field", "fields", "frame", "frames", "data"),
        *("raw", "tif", "tiff", "scan", "tomo", "hst", "pre", "post", "before", "after"),
        *("beam", "avg", "mean"),
    )
)
# There are at least this many times as many projections as dark or flat images.
_MANY = 2

Role = Literal["dark", "flat", "projections", "reconstructed", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGroup:
    """Files with a common name in one folder.

    Parameters
    ----------
    folder
        Names from the archive down to the folder.
    stem
        Common text of their names.
    num_images
        Number of images in them.
    size
        Extent (y, x) of their images; None if it was not read.
    """

    folder: tuple[str, ...]
    stem: str
    num_images: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Result for a group: a reason why it is not a volume, or a note for its entry."""

    no_volume: str | None = None
    note: str | None = None


def raw_folders(groups: Iterable[ImageGroup]) -> frozenset[tuple[str, ...]]:
    """Folders with one subfolder named like dark images and one like flat images."""
    roles: dict[tuple[str, ...], set[Role]] = defaultdict(set)
    for folder in {group.folder for group in groups if len(group.folder) > 1}:
        roles[folder[:-1]].add(_role_of_name(folder[-1]))
    return frozenset(folder for folder, found in roles.items() if {"dark", "flat"} <= found)


def scan_of(group: ImageGroup, raw: frozenset[tuple[str, ...]]) -> tuple[str, ...]:
    """Folder of the scan that a group belongs to.

    This is the folder above `darks`, `flats` or `projections`, and above a folder of any name
    in one of the `raw_folders` (`sample` beside `ob` and `df`).
    """
    if len(group.folder) < 2:
        return group.folder
    role = _role_of_name(group.folder[-1])
    any_name = role == _role_of_name(group.stem) == "unknown" and group.folder[:-1] in raw
    is_part = any_name or role in ("dark", "flat", "projections")
    return group.folder[:-1] if is_part else group.folder


def judge_scan(groups: Sequence[ImageGroup]) -> list[Verdict]:
    """Verdict for each group of one scan (`scan_of`).

    A group is projections if its name says so and dark or flat images are beside it. A group of
    any name is projections if dark and flat images of the same size are beside it. A group in
    doubt stays a volume with a note.
    """
    roles = _roles(groups)
    has = set(roles)
    calibrated = bool(has & {"dark", "flat"})
    raw = [
        (role == "projections" and calibrated) or _is_unnamed_scan(group, role, groups, roles)
        for group, role in zip(groups, roles, strict=True)
    ]
    darks_flats = [g for g, r in zip(groups, roles, strict=True) if r in ("dark", "flat")]
    beside = ", ".join(sorted({_shown(group) for group in darks_flats})[:3])
    others = [g.num_images for g, r in zip(groups, roles, strict=True) if r == "unknown"]
    has_both = {"dark", "flat"} <= has
    # Otherwise they may be volumes, such as a white and a dark mouse.
    few = all(_MANY * group.num_images <= max(others, default=1 << 62) for group in darks_flats)
    return [
        _verdict(role, is_raw, any(raw) or (has_both and few), has_both, beside)
        for role, is_raw in zip(roles, raw, strict=True)
    ]


def may_need_sizes(groups: Sequence[ImageGroup]) -> bool:
    """Whether image sizes are needed: there are files of any name beside dark and flat images."""
    return {"dark", "flat", "unknown"} <= set(_roles(groups))


def _verdict(role: Role, is_raw: bool, is_scan: bool, has_both: bool, beside: str) -> Verdict:
    if is_raw:
        return Verdict(
            no_volume=f"projections, not reconstructed (dark or flat images beside them: {beside})"
        )
    if role in ("dark", "flat"):
        if is_scan:
            return Verdict(no_volume=f"{role} images of a raw scan, not a volume")
        return Verdict(note=f"named like {role} images of a raw scan, but read as a volume")
    if role == "projections":
        return Verdict(
            note="named like projections, but read as a volume, because no dark or flat images "
            "are beside it"
        )
    if role == "unknown" and has_both:
        return Verdict(
            note=f"dark and flat images are beside it ({beside}), but may not belong to it; read "
            "as a volume"
        )
    return Verdict()


def _shown(group: ImageGroup) -> str:
    """Name of a group in messages: the folder's name if the name of the files is unclear."""
    told = _role_of_name(group.stem) != "unknown" or len(group.folder) < 2
    return group.stem if told else group.folder[-1]


def _is_unnamed_scan(
    group: ImageGroup, role: Role, groups: Sequence[ImageGroup], roles: Sequence[Role]
) -> bool:
    """Whether a group of any name holds the projections of the dark and flat images beside it."""
    if role != "unknown" or "projections" in roles or group.size is None:
        return False
    folders = {g.folder for g, r in zip(groups, roles, strict=True) if r == "unknown"}
    if len(folders) > 1:
        # One of them may be the reconstruction.
        return False
    beside = [g for g, r in zip(groups, roles, strict=True) if r in ("dark", "flat")]
    return (
        {"dark", "flat"} <= set(roles)
        and any(g.size == group.size for g in beside)
        and group.num_images >= _MANY * max(g.num_images for g in beside)
    )


def _roles(groups: Sequence[ImageGroup]) -> list[Role]:
    """Roles by the names of the files, else by the names of their folders."""
    words = [set(_tokens(group.stem)) for group in groups]
    counts = Counter(word for own in words for word in own)
    roles: list[Role] = []
    for group, own in zip(groups, words, strict=True):
        role = _role_of_name(group.stem, {word for word in own if counts[word] > 1})
        if role == "unknown" and len(group.folder) > 1:
            role = _role_of_name(group.folder[-1])
        roles.append(role)
    return roles


def _role_of_name(name: str, shared: Iterable[str] = ()) -> Role:
    """Role that a name states; `shared` are words that also occur in names beside it."""
    words = set(_tokens(name))
    if words & _RECONSTRUCTED:
        return "reconstructed"
    # A sample called "dark beetle" is not a dark image: all other words must be shared.
    rest = words - _NEUTRAL - (set(shared) - _DARK - _FLAT - _PROJECTION)
    if rest and rest <= _DARK | _FLAT:
        return "dark" if rest & _DARK else "flat"
    if words & _PROJECTION:
        return "projections"
    return "unknown"


def _tokens(name: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(name)]
