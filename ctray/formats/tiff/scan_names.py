"""Raw scans by the names of their files: projections with dark and flat images beside them."""

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
# Words that say nothing of what an image shows: ESRF writes refHST0000.
_NEUTRAL = frozenset(
    (
        *("image", "images", "img", "im", "field", "fields", "frame", "frames", "data"),
        *("raw", "tif", "tiff", "scan", "tomo", "hst", "pre", "post", "before", "after"),
        *("beam", "avg", "mean"),
    )
)
# Projections are at least this many times as many as dark or flat images.
_MANY = 2

Role = Literal["dark", "flat", "projections", "reconstructed", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageGroup:
    """Files of one name in one folder.

    Parameters
    ----------
    folder
        Names from the archive down to the folder.
    stem
        What their names share.
    num_images
        How many images they hold.
    size
        Extent (y, x) of their images; None where it was not looked at.
    """

    folder: tuple[str, ...]
    stem: str
    num_images: int
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the names say of a group: a reason why it is no volume, or a note for its entry."""

    no_volume: str | None = None
    note: str | None = None


def raw_folders(groups: Iterable[ImageGroup]) -> frozenset[tuple[str, ...]]:
    """Folders that hold a folder named like dark and one named like flat images."""
    roles: dict[tuple[str, ...], set[Role]] = defaultdict(set)
    for folder in {group.folder for group in groups if len(group.folder) > 1}:
        roles[folder[:-1]].add(_role_of_name(folder[-1]))
    return frozenset(folder for folder, found in roles.items() if {"dark", "flat"} <= found)


def scan_of(group: ImageGroup, raw: frozenset[tuple[str, ...]]) -> tuple[str, ...]:
    """Folder of the scan that a group belongs to: the one above a folder named `darks`.

    So does a folder of any name (`sample` beside `ob` and `df`) below one of the `raw_folders`.
    """
    if len(group.folder) < 2:
        return group.folder
    role = _role_of_name(group.folder[-1])
    any_name = role == _role_of_name(group.stem) == "unknown" and group.folder[:-1] in raw
    is_part = any_name or role in ("dark", "flat", "projections")
    return group.folder[:-1] if is_part else group.folder


def judge_scan(groups: Sequence[ImageGroup]) -> list[Verdict]:
    """Verdict for each group of one scan (`scan_of`).

    Projections are known by their name where dark or flat images are beside them, or by dark
    and flat images of the same size beside files of any name. In doubt a group stays a volume
    with a note.
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
    # As many images as in other files: a white and a dark mouse, perhaps.
    few = all(_MANY * group.num_images <= max(others, default=1 << 62) for group in darks_flats)
    return [
        _verdict(role, is_raw, any(raw) or (has_both and few), has_both, beside)
        for role, is_raw in zip(roles, raw, strict=True)
    ]


def may_need_sizes(groups: Sequence[ImageGroup]) -> bool:
    """Whether sizes of images matter: files of any name beside dark and flat images."""
    return {"dark", "flat", "unknown"} <= set(_roles(groups))


def _verdict(role: Role, is_raw: bool, is_scan: bool, has_both: bool, beside: str) -> Verdict:
    if is_raw:
        return Verdict(
            no_volume=f"projections, not reconstructed (dark or flat images beside them: {beside})"
        )
    if role in ("dark", "flat"):
        if is_scan:
            return Verdict(no_volume=f"{role} images of a raw scan, not a volume")
        return Verdict(note=f"named like {role} images of a raw scan; taken as a volume")
    if role == "projections":
        return Verdict(
            note="named like projections, but no dark or flat images are beside them; "
            "taken as a volume"
        )
    if role == "unknown" and has_both:
        return Verdict(
            note=f"dark and flat images are beside it ({beside}), but it is not clear whether "
            "they belong to it; taken as a volume"
        )
    return Verdict()


def _shown(group: ImageGroup) -> str:
    """Name of a group as messages show it: that of its folder where the files' says nothing."""
    told = _role_of_name(group.stem) != "unknown" or len(group.folder) < 2
    return group.stem if told else group.folder[-1]


def _is_unnamed_scan(
    group: ImageGroup, role: Role, groups: Sequence[ImageGroup], roles: Sequence[Role]
) -> bool:
    """Whether files of any name are the projections of the dark and flat images beside them."""
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
    """Roles by the names of the files, or else by those of their folders."""
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
    """Role that a name states; `shared` are words that other names beside it hold too."""
    words = set(_tokens(name))
    if words & _RECONSTRUCTED:
        return "reconstructed"
    # A sample called "dark beetle" is no dark image: every other word has to be shared.
    rest = words - _NEUTRAL - (set(shared) - _DARK - _FLAT - _PROJECTION)
    if rest and rest <= _DARK | _FLAT:
        return "dark" if rest & _DARK else "flat"
    if words & _PROJECTION:
        return "projections"
    return "unknown"


def _tokens(name: str) -> list[str]:
    return [token.lower() for token in _TOKEN.findall(name)]
