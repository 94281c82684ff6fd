"""Noise that matches a volume's background, to fill the voxels outside the field of view.

With a constant fill, the edge of the field of view would stay visible in slices along y and x. The
same holds for white noise if the reconstruction's noise is correlated. The network could then infer
the orientation of a slice from that edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_TILE = 64
_BLOCK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Background:
    """Grey values and noise of the sample's surroundings.

    Parameters
    ----------
    level
        Grey value of each slice, float32, (z,).
    noise
        Periodic tile of noise with the background's spectrum and standard deviation, zero mean,
        float32, (64, 64, 64).
    """

    level: FloatArray
    noise: FloatArray

    def fill(self, shape: tuple[int, int, int]) -> FloatArray:
        """Volume of `shape` (z, y, x) filled with background."""
        index = [np.arange(n) % _TILE for n in shape]
        level = np.resize(self.level, shape[0]) if len(self.level) != shape[0] else self.level
        filled: FloatArray = self.noise[np.ix_(*index)] + level[:, None, None]
        return filled


def estimate_background(
    volume: FloatArray, inside: npt.NDArray[np.bool_], rng: np.random.Generator
) -> Background:
    """Background of a volume (z, y, x), from quiet blocks near the rim of the field of view.

    Parameters
    ----------
    volume
        Working level, float32, finite inside.
    inside
        Field of view, bool, same shape.
    rng
        Generator for the noise.
    """
    rim = outer_rim(inside)
    level = _level_per_slice(volume, rim)
    blocks = _quiet_blocks(volume - level[:, None, None], inside, rim)
    spectrum = _spectrum(blocks)
    white = rng.standard_normal((_TILE,) * 3).astype(np.float32)
    noise = np.fft.irfftn(np.fft.rfftn(white) * np.sqrt(spectrum), s=(_TILE,) * 3, axes=(0, 1, 2))
    return Background(level=level, noise=noise.astype(np.float32))


def outer_rim(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Outer fifth of the field of view, by distance from its centre in each slice."""
    area = np.maximum(inside.sum(axis=(1, 2)), 1)
    y, x = np.arange(inside.shape[1])[:, None], np.arange(inside.shape[2])[None, :]
    cy = (inside * y).sum(axis=(1, 2)) / area
    cx = (inside * x).sum(axis=(1, 2)) / area
    radius = np.sqrt(area / np.pi)
    distance = np.sqrt((y - cy[:, None, None]) ** 2 + (x - cx[:, None, None]) ** 2)
    rim: npt.NDArray[np.bool_] = inside & (distance > 0.8 * radius[:, None, None])
    return rim


def _level_per_slice(volume: FloatArray, rim: npt.NDArray[np.bool_]) -> FloatArray:
    whole = float(np.median(volume[rim])) if rim.any() else float(np.median(volume))
    medians = [
        float(np.median(plane[ring])) if ring.sum() >= 16 else whole
        for plane, ring in zip(volume, rim, strict=True)
    ]
    # Running mean over neighbours: the medians of single slices are noisy and would make stripes in
    # slices along y and x.
    width = max(1, len(medians) // 16)
    padded = np.pad(np.array(medians), width, mode="edge")
    kernel = np.ones(2 * width + 1) / (2 * width + 1)
    return np.convolve(padded, kernel, mode="valid").astype(np.float32)


def _quiet_blocks(
    residual: FloatArray, inside: npt.NDArray[np.bool_], rim: npt.NDArray[np.bool_]
) -> FloatArray:
    """The less noisy half of the rim's blocks, (N, 8, 8, 8); the other half may hold sample."""
    counts = [n // _BLOCK for n in residual.shape]
    if min(counts) == 0:
        deviation = float(residual[inside].std()) if inside.any() else 0.0
        # A volume thinner than a block has no measurable spectrum, so use white noise.
        white = np.random.default_rng(0).standard_normal((8, _BLOCK, _BLOCK, _BLOCK))
        return (deviation * white).astype(np.float32)

    def tiles(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        cut = array[tuple(slice(0, c * _BLOCK) for c in counts)]
        z, y, x = counts
        split = cut.reshape(z, _BLOCK, y, _BLOCK, x, _BLOCK).transpose(0, 2, 4, 1, 3, 5)
        return split.reshape(-1, _BLOCK, _BLOCK, _BLOCK)

    full: npt.NDArray[np.bool_] = np.asarray(tiles(inside).all(axis=(1, 2, 3)))
    near_rim = tiles(rim).mean(axis=(1, 2, 3)) > 0.3
    candidates = full & near_rim if (full & near_rim).sum() >= 8 else full
    if not candidates.any():
        candidates = np.ones(len(full), dtype=bool)
    blocks = tiles(residual)[candidates]
    deviations = blocks.std(axis=(1, 2, 3))
    quiet: FloatArray = blocks[deviations <= np.median(deviations)].astype(np.float32)
    return quiet


def _spectrum(blocks: FloatArray) -> FloatArray:
    """Power spectrum on the tile's grid from the autocorrelation within the blocks."""
    centred = blocks - blocks.mean(axis=(1, 2, 3), keepdims=True)
    size = 2 * _BLOCK
    power = np.abs(np.fft.rfftn(centred, s=(size,) * 3, axes=(1, 2, 3))) ** 2
    correlation = np.fft.irfftn(power.mean(axis=0), s=(size,) * 3, axes=(0, 1, 2))
    lag = np.minimum(np.arange(size), size - np.arange(size))
    overlap = np.maximum(_BLOCK - lag, 1) / _BLOCK
    correlation /= _BLOCK**3 * overlap[:, None, None] * overlap[None, :, None] * overlap
    # Lags near a whole block are too noisy, so a raised cosine suppresses them.
    last = _BLOCK - 1
    taper = np.where(lag < last, 0.5 * (1 + np.cos(np.pi * lag / last)), 0.0)
    correlation *= taper[:, None, None] * taper[None, :, None] * taper
    tile = np.zeros((_TILE,) * 3)
    index = np.where(np.arange(size) < _BLOCK, np.arange(size), np.arange(size) - size)
    tile[np.ix_(index, index, index)] = correlation
    spectrum: FloatArray = np.clip(np.fft.rfftn(tile).real, 0, None).astype(np.float32)
    total = float(correlation[0, 0, 0])
    scale = spectrum.mean() if spectrum.any() else 1.0
    # Clipping negative lobes changes the variance a little; restore it.
    return spectrum * (total / scale) if total > 0 else spectrum * 0
