"""From a volume's working level to the input of the networks: window, field of view and fill."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ctray.config import PreprocessConfig
from ctray.core.errors import InvalidVolumeError
from ctray.core.geometry import Triple
from ctray.preprocess.background import estimate_background
from ctray.preprocess.column import level_column
from ctray.preprocess.field_of_view import (
    FieldOfView,
    find_field_of_view,
    remove_drift,
    remove_rings,
)
from ctray.preprocess.streaks import reduce_streaks

FloatArray = npt.NDArray[np.float32]

# Errors of NumPy for an archive that is truncated or changed, or for a file of another kind.
_DAMAGE = (ValueError, TypeError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A working level ready for slicing.

    Parameters
    ----------
    voxels
        Grey values quantised to uint8 inside the window, (z, y, x). 256 steps over a window of
        a few standard deviations are finer than any reconstruction's noise.
    noise
        Periodic tile of background, uint8, (64, 64, 64), to pad slices to the square canvas.
    mean, std
        Mean and standard deviation of `voxels` inside the field of view. The network sees
        (voxel - mean) / std.
    window
        Grey values that map to 0 and 255.
    field_of_view
        Bounds of the volume, at this level.
    factors
        Level-0 voxels per voxel, (z, y, x).
    noisy, noisy_noise
        `voxels` and `noise` with added noise, for the pretext tasks; None if the scan has enough
        noise already.
    """

    voxels: npt.NDArray[np.uint8]
    noise: npt.NDArray[np.uint8]
    mean: float
    std: float
    window: tuple[float, float]
    field_of_view: FieldOfView
    factors: Triple
    noisy: npt.NDArray[np.uint8] | None = None
    noisy_noise: npt.NDArray[np.uint8] | None = None

    @property
    def shape(self) -> Triple:
        """Voxels, (z, y, x)."""
        z, y, x = self.voxels.shape
        return (z, y, x)

    @property
    def num_bytes(self) -> int:
        """Bytes of all voxels in memory, including those with added noise."""
        return self.voxels.nbytes + (0 if self.noisy is None else self.noisy.nbytes)

    def slice(
        self, axis: int, index: int, side: int, shift: int = 0, *, added_noise: bool = True
    ) -> npt.NDArray[np.uint8]:
        """Slice perpendicular to `axis`, centred on a canvas of background, (side, side) uint8.

        `shift` moves the background, so that two slices do not share their padding. With
        `added_noise` False, the slice is without the noise that was added for the pretext tasks.
        """
        source, tile = self.voxels, self.noise
        if added_noise and self.noisy is not None and self.noisy_noise is not None:
            source, tile = self.noisy, self.noisy_noise
        plane: npt.NDArray[np.uint8] = np.take(source, index, axis=axis)
        if plane.shape == (side, side):
            return plane
        rows = (np.arange(side) + 17 * shift) % tile.shape[1]
        cols = (np.arange(side) + 29 * shift) % tile.shape[2]
        noise = tile[shift % tile.shape[0]]
        canvas: npt.NDArray[np.uint8] = noise[np.ix_(rows, cols)].copy()
        height, width = plane.shape
        top, left = (side - height) // 2, (side - width) // 2
        canvas[top : top + height, left : left + width] = plane
        return canvas

    def to_json(self) -> dict[str, Any]:
        """Receipt form: everything but the voxels."""
        return {
            "factors": list(self.factors),
            # Use six digits, not six decimals: attenuations per voxel may be as small as 1e-6.
            "window": [float(f"{v:.6g}") for v in self.window],
            "mean": round(self.mean, 4),
            "std": round(self.std, 4),
            "field_of_view": self.field_of_view.to_json(),
        }

    def to_bytes(self) -> bytes:
        """All contents as one uncompressed NumPy archive, for other processes."""
        buffer = io.BytesIO()
        about = np.frombuffer(json.dumps(self.to_json()).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {"voxels": self.voxels, "noise": self.noise, "about": about}
        if self.noisy is not None:
            arrays |= {"noisy": self.noisy, "noisy_noise": self.noisy_noise}
        if self.field_of_view.kept is not None:
            arrays["kept"] = self.field_of_view.kept
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Prepared:
        """Inverse of `to_bytes`; raises `InvalidVolumeError` for any other bytes."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
                about = json.loads(loaded["about"].tobytes())
                return cls(
                    voxels=loaded["voxels"],
                    noise=loaded["noise"],
                    mean=about["mean"],
                    std=about["std"],
                    window=tuple(about["window"]),
                    field_of_view=FieldOfView.from_json(
                        about["field_of_view"], loaded["kept"] if "kept" in loaded.files else None
                    ),
                    factors=tuple(about["factors"]),
                    noisy=loaded["noisy"] if "noisy" in loaded.files else None,
                    noisy_noise=loaded["noisy_noise"] if "noisy" in loaded.files else None,
                )
        except _DAMAGE as error:
            raise InvalidVolumeError(f"prepared volume is damaged: {error}") from error


def is_constant(volume: npt.NDArray[Any]) -> bool:
    """Whether all finite voxels of `volume` are equal, so that nothing can be found in it."""
    finite = volume[np.isfinite(volume)] if volume.dtype.kind == "f" else volume
    return bool(finite.size == 0 or finite.min() == finite.max())


def prepare(
    volume: npt.NDArray[Any], factors: Triple, config: PreprocessConfig, seed: int | None = None
) -> Prepared:
    """Prepare a working level for the networks.

    Parameters
    ----------
    volume
        Working level, any real dtype, (z, y, x). Voxels that are not finite count as outside the
        field of view.
    factors
        Level-0 voxels per voxel, (z, y, x).
    config
        Settings of the window, the field of view and the corrections.
    seed
        Seed of the noise. None derives it from the voxels, so that volumes do not share their
        noise: from shared noise, a network could infer the position of a slice along its axis.

    Raises
    ------
    InvalidVolumeError
        If no voxel is finite, all are equal, or none in the field of view is finite.
    """
    grey = volume.astype(np.float32)
    if is_constant(grey):
        raise InvalidVolumeError("all voxels have the same grey value; there is nothing to find")
    view = find_field_of_view(grey, config)
    inside = view.mask(grey.shape) & np.isfinite(grey)
    if not inside.any():
        raise InvalidVolumeError("no finite voxel lies inside the field of view")
    grey = np.where(np.isfinite(grey), grey, np.median(grey[inside])).astype(np.float32)
    if config.rings == "auto" and view.circle is not None:
        grey = remove_rings(grey, view.circle, inside)
    if view.column is not None:
        grey = level_column(grey, view.column)
    if config.drift == "auto":
        grey = remove_drift(grey, inside, config.drift_degree)
    if config.streaks == "auto":
        grey = reduce_streaks(grey, inside)
    drawn = zlib.crc32(np.ascontiguousarray(grey).data) if seed is None else seed
    rng = np.random.default_rng(drawn)
    background = estimate_background(grey, inside, rng)
    if not inside.all():
        grey = np.where(inside, grey, background.fill(grey.shape))
    # Clip outliers: a single one could make the added noise arbitrarily large.
    usual = np.clip(grey[inside], *np.percentile(grey[inside], config.window_percentiles))
    missing = _missing_noise(usual, float(background.noise.std()), config.noise_floor)
    noisy = _with_noise(grey, missing, rng)
    low, high = (float(v) for v in np.percentile(noisy[inside], config.window_percentiles))
    if high <= low:  # Nearly all voxels are equal, so use the whole range.
        low, high = float(grey.min()), float(grey.max())
    voxels = _quantise(grey, low, high)
    tile = background.noise + np.float32(np.median(background.level))
    values = voxels[inside]
    return Prepared(
        voxels=voxels,
        noise=_quantise(tile, low, high),
        mean=float(values.mean()),
        std=max(1.0, float(values.std())),
        window=(low, high),
        field_of_view=view,
        factors=factors,
        noisy=_quantise(noisy, low, high) if missing else None,
        noisy_noise=_quantise(_with_noise(tile, missing, rng), low, high) if missing else None,
    )


def _missing_noise(values: FloatArray, present: float, floor: float) -> float:
    """Standard deviation of the noise to add.

    Together, the added noise and the noise that is `present` reach `floor` times the deviation of
    the values.
    """
    missing = (floor * float(values.std())) ** 2 - present**2
    return float(max(0.0, missing) ** 0.5)


def _with_noise(grey: FloatArray, deviation: float, rng: np.random.Generator) -> FloatArray:
    if deviation == 0:
        return grey
    noisy: FloatArray = grey + rng.normal(0, deviation, grey.shape).astype(np.float32)
    return noisy


def _quantise(grey: FloatArray, low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled = (grey - low) * (255.0 / (high - low))
    quantised: npt.NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return quantised
