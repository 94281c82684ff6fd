"""Settings of the work on volumes: catalog, preparation, localization, crops."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctray.config.section import Binds, Length, Positive, Rate, Section, Step, Switch

Percentile = Annotated[float, Field(ge=0, le=100)]


class CatalogConfig(Section):
    """Choice of the volumes of the archive."""

    include: Annotated[tuple[str, ...], Binds.VOLUMES] = ()
    """Glob patterns for name or path in the archive. Only matching volumes are taken; empty takes
    all."""
    exclude: Annotated[tuple[str, ...] | None, Binds.VOLUMES] = None
    """Glob patterns for name or path in the archive. Matching volumes are skipped; null skips names
    of masks and labels."""
    dataset: str | None = None
    """Path of the dataset in HDF5 files; null takes the only 3D dataset."""
    voxel_size_um: tuple[Length, Length, Length] | None = None
    """Voxel size (z, y, x) in micrometres, for volumes without one; null leaves it unknown."""


class PreprocessConfig(Section):
    """Preparation of the working level, from which all slices are taken."""

    working_size: int = Field(default=64, ge=16, le=4096)
    """Longest side of the working level in voxels: the pyramid level nearest to it is used.
    Elongated volumes get a longer one, so that their shortest side keeps half of this size. On two
    cores 64 found more faint samples than 128 did in five times the time (paper: 504)."""
    window_percentiles: tuple[Percentile, Percentile] = (0.5, 99.5)
    """Percentiles of the grey values that become 0 and 1 before standardisation. The default
    ignores outliers."""
    circle: Switch = "auto"
    """`auto` finds the reconstruction circle and fills the outside with noise that matches the
    background inside; `off` does not."""
    container: Switch = "auto"
    """`auto` finds the inner wall of the container, also if tilted, and fills the outside in the
    same way; `off` does not."""
    rings: Switch = "auto"
    """`auto` removes ring artefacts: sharp structure that depends only on the distance from the
    rotation axis; `off` does not."""
    drift: Switch = "auto"
    """`auto` subtracts the drift of grey values, such as cupping or an uneven embedding medium;
    `off` does not."""
    drift_degree: int = Field(default=4, ge=1, le=8)
    """Degree of the polynomial that models the drift."""
    streaks: Switch = "auto"
    """`auto` damps planes with strong streak artefacts, as metal makes them, and keeps structure
    that stands out of the streaks; `off` does not."""
    noise_floor: float = Field(default=0.75, ge=0, le=2)
    """Least noise that the pretext tasks see, in standard deviations of the grey values. Noise is
    added to clearer scans, in which the tasks would learn from remains of drift and artefacts.
    Self-training and crops do not see the added noise."""

    @model_validator(mode="after")
    def _window_opens(self) -> PreprocessConfig:
        low, high = self.window_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"window_percentiles {low}, {high} must rise within 0 to 100")
        return self


class LocalizeConfig(Section):
    """From certainty profiles to a box, for the rotation task (paper 2.2)."""

    twin_offsets: tuple[Positive, ...] = Field(default=(1, 2, 3), min_length=1, max_length=64)
    """Distances in slices between a slice and its twins when certainty is measured. 0 would leak
    the noise that both share."""
    orientations: int = Field(default=8, ge=1, le=360)
    """Number of common orientations of slice and twin over which certainty is averaged."""
    threshold: Literal["background", "otsu"] | Annotated[float, Field(ge=0, le=1)] = "background"
    """Threshold on the certainty profile: `background` is the background level of the profile plus
    `spreads` times its spread; `otsu` is Otsu's threshold; a number in [0, 1] is a fixed
    certainty."""
    spreads: float = Field(default=5.0, gt=0, le=1000)
    """Least distance of the threshold from the background level, in background spreads."""
    min_rise: float = Field(default=0.02, ge=0, le=1)
    """Least distance of the threshold from the background level, in certainty."""
    rise_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Least distance of the threshold from the background level, as a fraction of the distance
    between the background level and the level of the certain slices. It helps in clear scans, where
    remains of streaks and drift beside the sample are a little certain."""
    min_peak: float = Field(default=0.12, ge=0, lt=1)
    """Least height of the peak of a profile above its background, in certainty. Below it, the
    volume has no sample."""
    last_look: Switch = "auto"
    """`auto` checks the grey values around every found box. If the sample continues beyond the box,
    the box grows, or the volume is left for review. `off` does not check."""
    specimens: Annotated[bool, Binds.BOX] = False
    """Whether each of several specimens in one volume gets its own box and crop. Needs
    `self_train.enabled`."""


class UncertaintyConfig(Section):
    """From the variance under dropout to a box, for the sorting task (paper 2.2)."""

    samples: int = Field(default=20, ge=2, le=10_000)
    """Number of Monte Carlo dropout samples."""
    stride: Literal[4, 8, 16, 32] | None = 4
    """Input pixels per superpixel. The feature map of an earlier stage is finer and sees less of
    its surroundings; null takes the last stage (paper: 32)."""
    shifts: Literal[1, 2, 4] = 2
    """Number of shifted positions per axis, which makes the map finer than the superpixels by this
    factor; 1 is the method of the paper."""
    channels: Literal["relative", "plain"] = "relative"
    """`relative` divides the variance of every channel by its mean over the volume, with a limit of
    ten, so that no single channel dominates; `plain` takes the variance as it is (paper)."""
    smooth: float = Field(default=1.0, ge=0, le=100)
    """Standard deviation of the Gaussian that smooths the map, in cells of the map and in slices
    along the slicing axis."""
    threshold: Literal["background", "top"] = "background"
    """`background` takes superpixels above the background level of the map; `top` takes the
    fraction `top_fraction` with the highest variance (paper)."""
    top_fraction: float = Field(default=0.03, gt=0, lt=1)
    """Fraction of the superpixels of the volume that `top` takes (paper: 3%)."""
    spreads: float = Field(default=5.0, gt=0, le=1000)
    """Least distance of the threshold of `background` from the background level, in background
    spreads."""
    rise_fraction: float = Field(default=0.4, ge=0, lt=1)
    """Least distance of the threshold of `background` from the background level, as a fraction of
    the distance between the background level and the highest variance."""
    min_fraction: float = Field(default=0.001, ge=0, lt=1)
    """Least size of a sample as a fraction of the volume. Smaller regions are ignored."""


class SelfTrainConfig(Section):
    """Self-training: a network learns from the archive's boxes which slices hold sample."""

    enabled: Annotated[bool, Binds.BOX] = True
    """Whether self-training runs and decides the boxes. Without it, boxes come from the pretext
    task alone."""
    steps: Step = 800
    """Number of optimizer steps."""
    slabs: int = Field(default=96, ge=6, le=6144, multiple_of=6)
    """Number of slabs per step, from six volumes."""
    neighbours: int = Field(default=2, ge=0, le=64)
    """Number of slices on each side of a slice that the network also sees. A single slice does not
    show thin tails."""
    cues: bool = True
    """Whether the network also sees the local standard deviation, which separates texture from
    noise, and the difference from the median along z, which separates the sample from structure
    that all slices share."""
    learning_rate: Rate = 2e-3
    """Peak learning rate of AdamW."""
    near_fraction: float = Field(default=0.6, ge=0, le=1)
    """Fraction of the slabs that are taken near a face, within an eighth of the axis."""
    threshold: Annotated[Literal["clarity"] | Annotated[float, Field(ge=0, lt=1)], Binds.BOX] = (
        "clarity"
    )
    """Position of a face between the log-odds of the empty slices beyond it (0) and of the surest
    slice of the volume (1). `clarity` chooses a value between 0.2 and 0.5 that grows with that
    distance, at most 5 above the empty slices: a cut tail costs more than a few empty slices."""
    clear_faces: Annotated[Switch, Binds.BOX] = "auto"
    """`auto` places a face by grey values alone where they separate the sample from its medium, on
    the next finer level if that is little to read. It halves the error in clear scans. `off` does
    not."""
    min_peak: Annotated[float, Binds.BOX] = Field(default=3.0, ge=-100, le=100)
    """Least log-odds of the surest slice along every axis for a volume with a sample. Bubbles and
    grains alone stay below. If the pretext task is sure of a sample, 1 less is enough."""
    min_agreement: Annotated[float, Binds.BOX] = Field(default=0.35, ge=0, le=1)
    """Least intersection over union of this box and the box of the pretext task. Below it, the
    volume is `uncertain`, unless its faces are clear."""


class CropConfig(Section):
    """The crops."""

    max_loss: float = Field(default=0.001, ge=0, lt=1)
    """Maximum fraction of sample voxels that a crop may lose. Sets the margin."""
    coverage: float = Field(default=0.95, gt=0, lt=1)
    """Least fraction of crops that keep to `max_loss`, as calibrated."""
    margin: float | None = Field(default=None, ge=0, lt=0.5)
    """Fixed margin on each face as a fraction of the axis; null takes the margin from
    `max_loss`."""
    max_stride: int = Field(default=32, ge=1, le=65_536)
    """Largest stride of a pyramid level in a crop. Coarser levels are dropped, because boxes grow
    to multiples of the stride."""
    snap_chunks: float = Field(default=0.05, ge=0, le=1)
    """Largest growth of a crop, as a fraction of its voxels, to align it with the chunks of the
    source. Aligned chunks are copied without decoding, which is ten times faster. 0 never
    aligns."""
    keep_surround: bool = False
    """Whether each crop also keeps a coarse copy of the whole volume, for `ctray restore`."""
    surround_size: int = Field(default=128, ge=8, le=4096)
    """Longest side of the coarse copy in voxels. The level nearest to it is taken."""
    ome_version: Literal["0.4", "0.5"] = "0.5"
    """OME-Zarr version of crops and imports."""
