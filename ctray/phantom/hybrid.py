"""Real specimens in harder scans: with a background added, or put into a synthetic scene.

The authors of many public scans clipped the air to 0, so that a plain threshold looks far better
on them than on raw scans. Everything here is a pure function of the scan and of (seed, index).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ctray.core.errors import ConfigError
from ctray.core.geometry import Box, Triple
from ctray.phantom.fields import Floats
from ctray.phantom.placement import enclosing_circle
from ctray.phantom.presets import preset
from ctray.phantom.render import Painted, Phantom, render, tight_box
from ctray.phantom.scene import Bools
from ctray.phantom.spec import MIN_SIDE, PhantomSpec
from ctray.phantom.tube import Tube, find_tube

# All in units of the median grey value of the specimen's soft tissue.
NOISY_OFFSET = 1.0
NOISY_STD = 0.4
NOISY_MEDIUM = 0.3
# The medium has the grey value that this part of the soft tissue stays below.
MEDIUM_QUANTILE = 0.25
# Contrast units; denser parts, such as bone, are pressed below, or they alone would tell.
STRUCTURE_LIMIT = 2.0
# Of the smaller side: leaves room for a wall that is off-centre and tilted.
_SPECIMEN_RADIUS = 0.33
_LENGTH = 0.87
_PLACES = 50


def noisy_scan(
    volume: npt.NDArray[Any], mask: npt.NDArray[Any], *, seed: int, index: int
) -> npt.NDArray[np.uint8]:
    """A scan with offset, noise and a low-contrast, off-centre cylinder of embedding medium.

    Parameters
    ----------
    volume
        Grey values (z, y, x).
    mask
        Of the same shape: 1 soft tissue and all that is as dense, 2 thin parts, 0 no sample. It
        gives the scale of the grey values and nothing else.
    seed, index
        Name the scan among others.

    Returns
    -------
    uint8, the median of the soft tissue at 40 above its old zero.
    """
    tissue = _tissue_level(volume, mask)
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(index,))))
    side = min(volume.shape[1:])
    radius = rng.uniform(0.34, 0.42) * side
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.12) * side
    middle = (np.array(volume.shape[1:]) - 1) / 2 + far * np.array([np.sin(angle), np.cos(angle)])
    y, x = np.ogrid[: volume.shape[1], : volume.shape[2]]
    cylinder = np.clip(radius + 0.5 - np.hypot(y - middle[0], x - middle[1]), 0, 1)
    image = volume.astype(np.float32) / np.float32(tissue) + np.float32(NOISY_OFFSET)
    image += (NOISY_MEDIUM * cylinder).astype(np.float32)
    image += np.float32(NOISY_STD) * rng.standard_normal(volume.shape, np.float32)
    grey: npt.NDArray[np.uint8] = np.clip(np.rint(40 * image), 0, 255).astype(np.uint8)
    return grey


def hybrid_phantom(
    volume: npt.NDArray[Any], mask: npt.NDArray[Any], *, seed: int, index: int
) -> Phantom:
    """A real specimen in the scene of `hard`: noisy medium, bright tilted off-centre container.

    The specimen keeps its voxels, restored where they are half air and pressed where they are far
    denser than tissue. The medium's grey value is that of the darker soft tissue. The volume is
    larger than the specimen by what the container needs.

    Parameters
    ----------
    volume, mask
        As in `noisy_scan`.
    seed, index
        As in `PhantomSpec`.

    Raises
    ------
    ConfigError
        If the mask is empty or of another shape.
    """
    if mask.shape != volume.shape:
        raise ConfigError(f"mask of shape {mask.shape} is not that of its volume {volume.shape}")
    box = tight_box(mask > 0)
    if box is None:
        raise ConfigError("the mask has no voxel of a specimen; give another scan")
    parts = mask[box.slices]
    structure = _structure(volume[box.slices], parts)
    contrast = float(structure.mean(where=parts > 0, dtype=np.float64))
    shape = _room_for(parts > 0)
    spec = preset("hard", seed=seed, index=index, size=shape, medium_contrast=round(contrast, 4))
    start, tube = _placed(spec, parts > 0)
    specimen = Painted(
        box=Box(start=start, stop=_sum(start, parts.shape)),
        coverage=(parts > 0).astype(np.float32),
        structure=structure - np.float32(contrast),
        labels=np.zeros(parts.shape, np.uint8),
    )
    return render(spec, tube, [specimen])


def _tissue_level(volume: npt.NDArray[Any], mask: npt.NDArray[Any]) -> float:
    level = float(np.median(volume[mask == 1])) if (mask == 1).any() else 0.0
    if level <= 0:
        raise ConfigError("the mask marks no soft tissue above grey value 0; give another scan")
    return level


def _structure(volume: npt.NDArray[Any], mask: npt.NDArray[Any]) -> Floats:
    """Specimen in contrast units, 0 where it is as grey as the medium will be; 0 beyond it."""
    tissue = _tissue_level(volume, mask)
    grey = volume.astype(np.float32)
    # Thin parts and the outermost layer are half air: their median is brought to the tissue's.
    inside = ndimage.binary_erosion(mask > 0)
    for part in ((mask == 1) & ~inside, mask == 2):
        if part.any():
            grey[part] *= np.float32(tissue / max(float(np.median(grey[part])), 1.0))
    low, medium, high = np.quantile(grey[mask == 1], [0.1, MEDIUM_QUANTILE, 0.75])
    # Soft tissue spans about as much as the structure of a phantom.
    units = (grey - np.float32(medium)) / np.float32(max(high - low, 1e-3))
    pressed = np.float32(STRUCTURE_LIMIT) * np.tanh(units / np.float32(STRUCTURE_LIMIT))
    structure: Floats = np.where(mask > 0, pressed, 0).astype(np.float32)
    return structure


def _room_for(sample: Bools) -> Triple:
    """Shape of a volume in which a container fits around the sample."""
    side = int(np.ceil(enclosing_circle(_outline(sample)[:, 1:])[1] / _SPECIMEN_RADIUS))
    z, y, x = (max(n, MIN_SIDE) for n in (int(np.ceil(sample.shape[0] / _LENGTH)), side, side))
    return (z, y, x)


def _placed(spec: PhantomSpec, sample: Bools) -> tuple[Triple, Tube]:
    """First voxel of the specimen's box in the volume of `spec`, and the container around it."""
    points = _outline(sample)
    centre, radius = enclosing_circle(points[:, 1:])
    middle = (np.array(spec.shape[1:]) - 1) / 2
    slack = 0.38 * min(spec.shape[1:]) - radius
    for attempt in range(_PLACES):
        rng = spec.rng("place", attempt)
        # Ever nearer to the middle, where a container is found at last.
        far = slack * rng.random() ** 0.5 * (1 - attempt / _PLACES)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.rint(middle - centre + far * np.array([np.sin(angle), np.cos(angle)]))
        z = rng.integers(1, max(spec.shape[0] - sample.shape[0], 2))
        shift = (int(z), max(int(y), 0), max(int(x), 0))
        tube = find_tube(spec, points + np.array(shift), tilted=True)
        if tube is not None:
            return shift, tube
    raise ConfigError(f"no container fits around a specimen of {sample.shape} in {spec.shape}")


def _outline(sample: Bools) -> npt.NDArray[np.float64]:
    """Voxels (n, 3) of the surface in y and x, slice by slice."""
    shell = sample & ~ndimage.binary_erosion(sample, structure=np.ones((1, 3, 3), bool))
    return np.argwhere(shell).astype(np.float64)


def _sum(start: Triple, shape: tuple[int, ...]) -> Triple:
    z, y, x = (a + n for a, n in zip(start, shape, strict=True))
    return (z, y, x)
