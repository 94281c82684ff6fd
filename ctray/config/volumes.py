"""Settings of what is done to volumes: found, prepared, localized, cropped."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctray.config.section import Binds, Length, Positive, Rate, Section, Step, Switch

Percentile = Annotated[float, Field(ge=0, le=100)]


class CatalogConfig(Section):
    """Which volumes of the archive take part."""

    include: Annotated[tuple[str, ...], Binds.VOLUMES] = ()
    """Glob patterns on the relative path; empty takes every volume."""
    exclude: Annotated[tuple[str, ...] | None, Binds.VOLUMES] = None
    """Glob patterns to leave out; null leaves out what looks like masks and labels."""
    dataset: str | None = None
    """Path of the dataset inside HDF5 files; null takes the only 3D one."""
    voxel_size_um: tuple[Length, Length, Length] | None = None
    """Voxel size (z, y, x) of volumes that carry none, in micrometres."""


class PreprocessConfig(Section):
    """What is done to a volume's working level before any slice is taken."""

    working_size: int = Field(default=64, ge=16, le=4096)
    """Longest side, voxels, of the pyramid level that is learned from and localized in. Elongated
    volumes get a longer one, so that their shortest side keeps half of it. The paper uses 504; 64
    was chosen because 128 with as much time for training finds fewer faint samples."""
    window_percentiles: tuple[Percentile, Percentile] = (0.5, 99.5)
    """Grey values that become 0 and 1 before standardisation."""
    circle: Switch = "auto"
    """Find the reconstruction circle and fill beyond it with matched noise."""
    container: Switch = "auto"
    """Find the container's inner wall, tilt included, and fill beyond it."""
    rings: Switch = "auto"
    """Subtract what is sharp and depends on the distance from the rotation axis alone."""
    trend: Switch = "auto"
    """Subtract the slow drift of grey values: cupping, uneven embedding medium."""
    trend_degree: int = Field(default=4, ge=1, le=8)
    """Degree of the polynomial that the drift is."""
    streaks: Switch = "auto"
    """Calm planes of the scan that are many times as restless as the others, as streaks of metal
    make them; what stands out of them stays."""
    noise_floor: float = Field(default=0.75, ge=0, le=2)
    """Least noise that the pretext tasks see, as part of the grey values' standard deviation. It is
    added to clearer scans, where they would read what is left of drift and artefacts; crops and
    self-training see none of it."""

    @model_validator(mode="after")
    def _window_opens(self) -> PreprocessConfig:
        low, high = self.window_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"window_percentiles {low}, {high} must rise within 0 to 100")
        return self


class LocalizeConfig(Section):
    """From certainty profiles to a box (paper 2.2)."""

    twin_offsets: tuple[Positive, ...] = Field(default=(1, 2, 3), min_length=1, max_length=64)
    """Distances of the test-time twins in slices; 0 would leak the shared noise."""
    orientations: int = Field(default=8, ge=1, le=360)
    """Common orientations that certainty is averaged over."""
    threshold: Literal["background", "otsu"] | Annotated[float, Field(ge=0, le=1)] = "background"
    """`background`: the profile's own background level plus its spread; `otsu`; or a fixed
    certainty in [0, 1]."""
    spreads: float = Field(default=5.0, gt=0, le=1000)
    """Background spreads above the background level that the threshold lies at least."""
    min_rise: float = Field(default=0.02, ge=0, le=1)
    """Smallest distance of the threshold from the background level."""
    rise_part: float = Field(default=0.0, ge=0, lt=1)
    """Smallest distance as a part of the way from background to the certain slices' level: in
    clear scans what streaks and drift leave beside the sample is a little certain too."""
    min_peak: float = Field(default=0.12, ge=0, lt=1)
    """A profile whose peak rises less than this above its background holds no sample."""
    last_look: Switch = "auto"
    """Look once more at the grey values around a box that was found, whatever found it: pieces of
    the sample that go on beyond it make it grow, or leave the volume for review."""
    instances: Annotated[bool, Binds.BOX] = False
    """Whether several specimens in one volume get a box and a crop each; needs `refine.enabled`."""


class UncertaintyConfig(Section):
    """From the variance that dropout makes to a box (paper 2.2); for the sorting task."""

    samples: int = Field(default=20, ge=2, le=10_000)
    """Monte Carlo dropout samples."""
    stride: Literal[4, 8, 16, 32] | None = 4
    """Input pixels per superpixel: the feature map of an earlier stage is finer than the last and
    sees less of what lies beside; null takes the last one (paper: 32)."""
    shifts: Literal[1, 2, 4] = 2
    """Places per axis that the slices are seen at, which makes the map finer than the superpixels
    by this factor; 1 is the paper's plain form."""
    channels: Literal["relative", "plain"] = "relative"
    """`relative`: every channel's variance in units of its mean over the volume, and at most ten
    of them, so that no channel speaks for all; `plain`: as it is (paper)."""
    smooth: float = Field(default=1.0, ge=0, le=100)
    """Standard deviation of the Gaussian that calms the map: in its cells, and in as many slices
    along the slicing axis."""
    threshold: Literal["background", "top"] = "background"
    """`background`: above the map's own background level; `top`: the part of the superpixels
    with the highest variance that `top_part` tells (paper)."""
    top_part: float = Field(default=0.03, gt=0, lt=1)
    """Part of the volume's superpixels that `top` takes (paper: 3%)."""
    spreads: float = Field(default=5.0, gt=0, le=1000)
    """Background spreads above the background level that `background` lies at least."""
    rise_part: float = Field(default=0.4, ge=0, lt=1)
    """Its least distance from the background level, as a part of that of the highest variance."""
    min_part: float = Field(default=0.001, ge=0, lt=1)
    """A region smaller than this part of the volume is no sample."""


class RefineConfig(Section):
    """Self-training: the boxes of the whole archive teach a network which slices hold sample."""

    enabled: Annotated[bool, Binds.BOX] = True
    """Whether it is done and its faces are taken; without it the boxes are those of the pretext
    task alone."""
    steps: Step = 800
    """Optimizer steps."""
    slabs: int = Field(default=96, ge=6, le=6144, multiple_of=6)
    """Slabs a step, from six volumes at a time."""
    neighbours: int = Field(default=2, ge=0, le=64)
    """Slices on either side of a slice that are seen with it: thin tails do not show in one."""
    cues: bool = True
    """Whether the network also sees the local deviation and the difference from the median along z,
    which tell texture from noise and a sample from what is the same in all slices."""
    learning_rate: Rate = 2e-3
    """Peak learning rate of AdamW."""
    near_part: float = Field(default=0.6, ge=0, le=1)
    """Part of the slabs that are taken near a face, within an eighth of the axis."""
    threshold: Annotated[Literal["clarity"] | Annotated[float, Field(ge=0, lt=1)], Binds.BOX] = (
        "clarity"
    )
    """Where a face lies, as a part of the way from the log-odds of the empty slices beyond it to
    those of the volume's surest one. `clarity`: the larger that distance, the higher, between a
    fifth and a half, but no more than 5 up: a tail that is cut costs more than empty slices that
    are kept."""
    clear_faces: Annotated[Switch, Binds.BOX] = "auto"
    """Where grey values alone tell the sample from its medium, put the faces where they say, at the
    next finer level where that is little to read: sharper by half in clear scans."""
    min_peak: Annotated[float, Binds.BOX] = Field(default=3.0, ge=-100, le=100)
    """Log-odds that the surest slice along every axis must reach for there to be a sample: bubbles
    and grains alone stay below. Where the pretext task is sure of a sample, 1 less is enough."""
    min_agreement: Annotated[float, Binds.BOX] = Field(default=0.35, ge=0, le=1)
    """A volume is `uncertain` where the intersection over union of this box with the pretext
    task's own is smaller, unless its faces are clear."""


class CropConfig(Section):
    """The cropped volumes."""

    max_loss: float = Field(default=0.001, ge=0, lt=1)
    """Part of the sample's voxels that a crop may cut; the margin follows from it."""
    coverage: float = Field(default=0.95, gt=0, lt=1)
    """Part of the crops that keep to `max_loss` at least, as calibrated."""
    margin: float | None = Field(default=None, ge=0, lt=0.5)
    """Fixed margin on each face instead, as part of the axis."""
    max_stride: int = Field(default=32, ge=1, le=65_536)
    """Pyramid levels with a larger stride are dropped, since boxes snap outward to it."""
    snap_chunks: float = Field(default=0.05, ge=0, le=1)
    """Boxes snap outward to chunks of the source where that adds at most this part of the crop's
    voxels: their chunks are then copied as they are stored, which is ten times faster. 0 never."""
    keep_surround: bool = False
    """Whether a crop keeps the whole volume at a coarse level too, for `ctray restore`."""
    surround_size: int = Field(default=128, ge=8, le=4096)
    """Longest side of that level, in its voxels; the nearest that halving reaches."""
    ome_version: Literal["0.4", "0.5"] = "0.5"
    """OME-Zarr version of crops and imports."""
