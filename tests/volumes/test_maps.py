"""Maps of a volume lie where they belong, in micrometres or in voxels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image import Image

from ctray.core.geometry import VoxelSize
from ctray.volumes.maps import write_map
from ctray.volumes.volume import open_volume
from ctray.volumes.writer import create_volume


@pytest.mark.parametrize(
    ("voxel_size", "edge"),
    [(VoxelSize(z_um=2.0, y_um=3.0, x_um=5.0), (2.0, 3.0, 5.0)), (None, (1.0, 1.0, 1.0))],
)
def test_cell_lies_over_its_voxels(
    tmp_path: Path, voxel_size: VoxelSize | None, edge: tuple[float, float, float]
) -> None:
    """Cells of 1 x 4 x 4 voxels of a level reduced twice, the first one beginning at -3."""
    url = str(tmp_path / "volume.zarr")
    origin = (7.0, 11.0, 13.0)
    writer = create_volume(
        url, shape=(20, 30, 40), dtype="uint8", voxel_size=voxel_size, origin_um=origin
    )
    for box in writer.grid.shards():
        writer.write(box, np.ones(box.shape, np.uint8))
    writer.build_pyramid()
    writer.commit({})
    values = np.arange(10 * 5 * 6, dtype=np.float32).reshape(10, 5, 6)
    map_url = str(tmp_path / "map.zarr")
    write_map(
        map_url,
        values,
        volume=open_volume(url),
        cell=(1, 4, 4),
        offset=(0, -3, -1),
        factors=(2, 2, 2),
        provenance={"volume_id": "volume"},
    )
    found = open_volume(map_url)
    np.testing.assert_array_equal(found.read_level(0), values)
    assert found.attributes["volume_id"] == "volume"
    attributes = json.loads((tmp_path / "map.zarr" / "zarr.json").read_text())["attributes"]
    scale, shift = (
        t[t["type"]]
        for t in attributes["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    )
    assert scale == pytest.approx([2 * edge[0], 8 * edge[1], 8 * edge[2]])
    # Level-0 voxels that cell (0, 1, 1) covers: z 0 and 1, y 2 to 9, x 6 to 13.
    middle = (0.5, 5.5, 9.5)
    place = [s + n * c for s, n, c in zip(shift, (0, 1, 1), scale, strict=True)]
    expected = [o + m * e for o, m, e in zip(origin, middle, edge, strict=True)]
    assert place == pytest.approx(expected)
    Image.from_zarr(zarr.open_group(map_url, mode="r"))
