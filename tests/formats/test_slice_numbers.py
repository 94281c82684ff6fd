"""Which number in the names of files counts slices."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctray.formats.slices.stacks import NumberedStack, group_numbered


def patterns(names: list[str]) -> dict[str, int]:
    """Pattern and number of files of each stack; none of them a problem."""
    stacks = group_numbered(names)
    assert [stack.problem for stack in stacks] == [None] * len(stacks)
    return {stack.pattern: len(stack.names) for stack in stacks}


def only(names: list[str]) -> NumberedStack:
    (stack,) = group_numbered(names)
    return stack


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("s_z{z:03d}_ch{c}.tif", ["s_z*_ch0.tif", "s_z*_ch1.tif", "s_z*_ch2.tif"]),
        ("ch{c}_z{z:03d}.tif", ["ch0_z*.tif", "ch1_z*.tif", "ch2_z*.tif"]),
        ("{z:04d}_{c}.5keV.tif", ["*_0.5keV.tif", "*_1.5keV.tif", "*_2.5keV.tif"]),
        ("scan{c}_{z:04d}.tif", ["scan0_*.tif", "scan1_*.tif", "scan2_*.tif"]),
        ("slice{z}_w{c}.tif", ["slice*_w0.tif", "slice*_w1.tif", "slice*_w2.tif"]),
    ],
)
def test_grids(name: str, expected: list[str]) -> None:
    names = [name.format(z=z, c=c) for z in range(9) for c in range(3)]
    assert patterns(names) == dict.fromkeys(expected, 9)


def test_running_number_over_several_scans() -> None:
    names = [f"scan{i // 9}_{i:04d}.tif" for i in range(18)]
    assert patterns(names) == {"scan0_*.tif": 9, "scan1_*.tif": 9}


def test_numbers_that_change_together_keep_one_order() -> None:
    names = [f"rec_{z:04d}_z{500 - z}um.tif" for z in range(20)]
    assert only(names).names == tuple(names)
    mixed = [f"rec_{z:04d}_{7 * z % 20}.tif" for z in range(20)]
    assert "they give different orders" in str(only(mixed).problem)


@pytest.mark.parametrize(
    ("name", "counted"),
    [("s_ch{}.tif", "ch"), ("s_{}.5keV.tif", "energy"), ("s_z{}.tif", None), ("t_{}.tif", None)],
)
def test_lone_number_that_counts_no_slices_is_told(name: str, counted: str | None) -> None:
    stack = only([name.format(i) for i in range(4)])
    assert stack.counted == counted
    assert ("may not count slices" in "; ".join(stack.notes)) == (counted is not None)


def test_energy_and_time() -> None:
    names = [f"r_{e}keV_2023-05-11T{t:06d}.tif" for e in (8, 9) for t in range(10000, 10010)]
    assert patterns(names) == {"r_8keV_*.tif": 10, "r_9keV_*.tif": 10}


def test_gaps_of_positions_are_told_and_of_times_are_not() -> None:
    positions = [f"rec_z{12.5 + 0.0065 * z:.3f}mm.tif" for z in range(20) if z != 7]
    assert only(positions).notes == (
        "1 slices missing in the numbering (between 12.539 and 12.552)",
    )
    times = [f"rec_20230511T{h:02d}{m:02d}00.tif" for h in (1, 2) for m in range(0, 60, 7)]
    assert only(times).notes == ()
    assert only(times).names == tuple(times)


def test_positions_below_and_above_zero() -> None:
    names = [f"rec_z{z}.tif" for z in range(-9, 10)]
    assert only(names).names == tuple(names)
    # A dash that is no sign: two scans.
    two = [f"a-{z}.tif" for z in range(9)] + [f"a{z}.tif" for z in range(9)]
    assert patterns(two) == {"a-*.tif": 9, "a*.tif": 9}


def test_suffixes_of_one_stack() -> None:
    mixed = [f"a_{z}.{'TIF' if z % 2 else 'tiff'}" for z in range(9)]
    assert only(mixed).names == tuple(mixed)
    twice = [f"a_{z}.{suffix}" for z in range(9) for suffix in ("tif", "tiff")]
    assert patterns(twice) == {"a_*.tif": 9, "a_*.tiff": 9}


def test_parts_that_cameras_number() -> None:
    stack = only(["b.tif", "b@0001.tif", "b@0002.tif"])
    assert stack.is_split
    assert stack.names == ("b.tif", "b@0001.tif", "b@0002.tif")
    assert stack.stem == "b"
    assert only(["b.tif", "b@0001.tif"]).is_split
    # An overview beside its slices is no part.
    assert patterns(["b.tif", *[f"b_{z}.tif" for z in range(3)]]) == {"b.tif": 1, "b_*.tif": 3}


@settings(max_examples=200, derandomize=True)
@given(
    st.lists(
        st.from_regex(
            r"[az_-]{0,2}[0-9]{1,3}([_.-][0-9]{1,3}){0,3}(mm|keV)?\.tiff?", fullmatch=True
        ),
        unique=True,
        max_size=20,
    )
)
def test_every_name_is_in_one_stack(names: list[str]) -> None:
    stacks = group_numbered(names)
    assert sorted(name for stack in stacks for name in stack.names) == sorted(names)
    assert len({stack.pattern for stack in stacks}) == len(stacks)
    backwards = group_numbered(names[::-1])
    assert [stack.pattern for stack in backwards] == [stack.pattern for stack in stacks]
