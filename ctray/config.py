"""Configuration of a run: one model per stage, read from YAML, every default declared here."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from ctray.cluster_config import JobConfig, KubeConfig
from ctray.config_section import Section
from ctray.errors import ConfigError, one_line

Positive = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(gt=0)]
Task = Literal["rotation", "sorting"]
# YAML reads a bare `off` as false.
Switch = Annotated[Literal["auto", "off"], BeforeValidator(lambda v: "off" if v is False else v)]


class CatalogConfig(Section):
    """Which volumes of the archive take part."""

    include: tuple[str, ...] = ()
    """Glob patterns on the relative path; empty takes every volume."""
    exclude: tuple[str, ...] | None = None
    """Glob patterns to leave out; null leaves out what looks like masks and labels."""
    dataset: str | None = None
    """Path of the dataset inside HDF5 files; null takes the only 3D one."""
    voxel_size_um: tuple[Length, Length, Length] | None = None
    """Voxel size (z, y, x) of volumes that carry none, in micrometres."""


class PreprocessConfig(Section):
    """What is done to a volume's working level before any slice is taken."""

    working_size: int = Field(default=128, ge=16)
    """Longest side of the pyramid level that is learned from and localized in (paper: 504)."""
    window_percentiles: tuple[float, float] = (0.5, 99.5)
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


class EncoderConfig(Section):
    """The network that embeds one slice."""

    name: str = "narrow"
    """`narrow` (ours, for slices up to about 256 on a CPU) or a name that
    segmentation-models-pytorch knows, such as `resnet18` or `resnet50` (paper)."""
    widths: tuple[Positive, ...] = (24, 48, 96)
    """Channels of the narrow encoder's stages; each halves the resolution."""
    output_stride: Literal[8, 16, 32] = 8
    """Input pixels per superpixel (paper: 32)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Spatial dropout after each stage."""
    pool_grid: int = Field(default=4, ge=1)
    """Cells per side of the pooled feature map that becomes the embedding; 1 is global average
    pooling, the paper's plain form, which does not learn orientation from small slices."""
    embedding_dim: int = Field(default=128, ge=8)
    """Length of a slice's embedding."""


class RotationConfig(Section):
    """The rotation pretext task (paper 2.1)."""

    twin_range: float = Field(default=100 / 2016, gt=0, le=0.5)
    """Largest distance between a slice and its twin, as part of the axis (paper: 100 of 2016)."""
    max_angle: float = Field(default=90.0, gt=0, le=180)
    """Largest relative angle, degrees."""
    angle_step: float = Field(default=30.0, gt=0)
    """Distance of neighbouring classes, degrees; 90 by 30 gives the paper's seven classes."""
    axes: tuple[Literal["z", "y", "x"], ...] = Field(default=("z", "y", "x"), min_length=1)
    """Slicing axes that examples are taken along."""

    @model_validator(mode="after")
    def _whole_steps(self) -> RotationConfig:
        steps = self.max_angle / self.angle_step
        if abs(steps - round(steps)) > 1e-9:
            raise ValueError(
                f"max_angle {self.max_angle} is no multiple of angle_step {self.angle_step}"
            )
        return self

    @property
    def num_classes(self) -> int:
        """Number of relative angles; the middle class is 0 degrees."""
        return 2 * round(self.max_angle / self.angle_step) + 1


Augmentation = Literal["flip", "turn", "shift", "rescale", "grey", "blur", "noise"]


class SortingConfig(Section):
    """The sorting pretext task (paper 2.1)."""

    num_slices: int = Field(default=12, ge=2)
    """Slices of one volume that are put in order: one example (paper 3.1)."""
    margin: float = Field(default=0.2, gt=0)
    """Least distance of the scores of two slices in the right order (paper 3.1)."""
    axes: Literal["longest"] | tuple[Literal["z", "y", "x"], ...] = "longest"
    """Slicing axes that examples are taken along; `longest` is each volume's own."""
    sampling: Literal["uniform", "gaussian"] = "uniform"
    """`uniform` over the axis, or a generalized Gaussian about its middle, which spares the ends
    that hold no sample."""
    gaussian_shape: Length = 8.0
    """Exponent of the generalized Gaussian: 2 is the normal distribution, more is flatter."""
    gaussian_scale: Length = 0.42
    """Its scale, as part of the axis: at this distance from the middle it has fallen to 1/e."""
    augment: Literal["none", "light", "aggressive"] | tuple[Augmentation, ...] = "aggressive"
    """Changes to the slices in training: `light` flips and turns them, `aggressive` does
    everything (the paper found it to help), a list names them one by one."""

    @model_validator(mode="after")
    def _has_axes(self) -> SortingConfig:
        if not self.axes:
            raise ValueError("axes must name at least one of z, y, x, or be longest")
        return self

    @property
    def augmentations(self) -> frozenset[Augmentation]:
        """Names of what is done to the slices in training."""
        if self.augment == "none":
            return frozenset()
        if self.augment == "light":
            return frozenset({"flip", "turn"})
        if self.augment == "aggressive":
            return frozenset(get_args(Augmentation))
        return frozenset(self.augment)


def random_displacement(num_slices: int) -> float:
    """Mean displacement of a random order: (k**2 - 1) / (3 k), 3.97 for k = 12."""
    return (num_slices**2 - 1) / (3 * num_slices)


class TrainConfig(Section):
    """Training, the same with and without Ray."""

    steps: int = Field(default=1500, ge=1)
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1)
    """Examples (pairs of slices, or bags of them to sort) a step, over all workers."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """AdamW weight decay."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Part of the steps in which the learning rate rises; it falls along a cosine after that."""
    run_length: int = Field(default=32, ge=1)
    """Consecutive examples that share one volume, so that a reader loads it once."""
    interleave: int = Field(default=8, ge=1)
    """Runs that a batch mixes; a multiple of the number of workers."""
    checkpoint_every: int = Field(default=250, ge=1)
    """Steps between checkpoints."""
    log_every: int = Field(default=25, ge=1)
    """Steps between rows of metrics."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of examples, initial weights and dropout."""
    max_volumes: int = Field(default=64, ge=1)
    """Volumes to learn from; of a larger archive a seeded choice is taken."""
    validation_part: float = Field(default=0.0, ge=0, le=0.9)
    """Part of them that is held out to watch the learning; never trained on (paper: 3 to 1, the
    sorting task's default). Their boxes are found all the same."""
    num_workers: int = Field(default=1, ge=1)
    """Ray Train workers."""
    num_readers: int = Field(default=2, ge=1)
    """Ray Data readers a worker; they do not change what is learned."""
    num_gpus_per_worker: float | None = Field(default=None, ge=0)
    """GPUs a worker; null takes one where the cluster has some."""

    @model_validator(mode="after")
    def _batches_fit(self) -> TrainConfig:
        if (self.run_length * self.interleave) % self.batch_size:
            raise ValueError(
                f"run_length {self.run_length} x interleave {self.interleave} must be a multiple "
                f"of batch_size {self.batch_size}"
            )
        if self.batch_size % self.interleave:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of interleave {self.interleave}"
            )
        if self.interleave % self.num_workers:
            raise ValueError(
                f"interleave {self.interleave} must be a multiple of num_workers "
                f"{self.num_workers}, so that workers share a batch evenly"
            )
        return self


class LocalizeConfig(Section):
    """From certainty profiles to a box (paper 2.2)."""

    twin_offsets: tuple[Positive, ...] = Field(default=(1, 2, 3), min_length=1)
    """Distances of the test-time twins in slices; 0 would leak the shared noise."""
    orientations: int = Field(default=8, ge=1)
    """Common orientations that certainty is averaged over."""
    threshold: Literal["background", "otsu"] | Annotated[float, Field(ge=0, le=1)] = "background"
    """`background`: the profile's own background level plus its spread; `otsu`; or a fixed
    certainty in [0, 1]."""
    spreads: float = Field(default=5.0, gt=0)
    """Background spreads above the background level that the threshold lies at least."""
    min_rise: float = Field(default=0.02, ge=0)
    """Smallest distance of the threshold from the background level."""
    rise_part: float = Field(default=0.0, ge=0, lt=1)
    """Smallest distance as a part of the way from background to the certain slices' level."""
    min_peak: float = Field(default=0.12, ge=0, lt=1)
    """A profile whose peak rises less than this above its background holds no sample."""
    instances: bool = False
    """Whether several specimens in one volume get a box and a crop each; needs `refine.enabled`."""


class UncertaintyConfig(Section):
    """From the variance that dropout makes to a box (paper 2.2); for the sorting task."""

    samples: int = Field(default=20, ge=2)
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
    smooth: float = Field(default=1.0, ge=0)
    """Standard deviation of the Gaussian that calms the map: in its cells, and in as many slices
    along the slicing axis."""
    threshold: Literal["background", "top"] = "background"
    """`background`: above the map's own background level; `top`: the part of the superpixels
    with the highest variance that `top_part` tells (paper)."""
    top_part: float = Field(default=0.03, gt=0, lt=1)
    """Part of the volume's superpixels that `top` takes (paper: 3%)."""
    spreads: float = Field(default=5.0, gt=0)
    """Background spreads above the background level that `background` lies at least."""
    rise_part: float = Field(default=0.4, ge=0, lt=1)
    """Its least distance from the background level, as a part of that of the highest variance."""
    min_part: float = Field(default=0.001, ge=0, lt=1)
    """A region smaller than this part of the volume is no sample."""


class RefineConfig(Section):
    """Self-training: the boxes of the whole archive teach a network which slices hold sample."""

    enabled: bool = True
    """Whether it is done and its faces are taken; without it the boxes are those of the pretext
    task alone."""
    steps: int = Field(default=800, ge=1)
    """Optimizer steps."""
    slabs: int = Field(default=96, ge=6, multiple_of=6)
    """Slabs a step, from six volumes at a time."""
    neighbours: int = Field(default=2, ge=0)
    """Slices on either side of a slice that are seen with it: thin tails do not show in one."""
    cues: bool = True
    """Whether the network also sees the local deviation and the difference from the median along z,
    which tell texture from noise and a sample from what is the same in all slices."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """Peak learning rate of AdamW."""
    near_part: float = Field(default=0.6, ge=0, le=1)
    """Part of the slabs that are taken near a face, within an eighth of the axis."""
    threshold: float = Field(default=0.3, ge=0, lt=1)
    """Where a face lies, as a part of the way from the log-odds of the empty slices beyond it to
    those of the volume's surest one: below the middle, since a tail that is cut costs more than
    empty slices that are kept."""
    min_peak: float = 2.5
    """Log-odds that the surest slice along every axis must reach for there to be a sample: bubbles
    and grains alone stay below. Where the pretext task is sure of a sample, 1 less is enough."""
    min_agreement: float = Field(default=0.35, ge=0, le=1)
    """A volume is `uncertain` where the intersection over union of this box with the pretext
    task's own is smaller."""


class CropConfig(Section):
    """The cropped volumes."""

    max_loss: float = Field(default=0.001, ge=0, lt=1)
    """Part of the sample's voxels that a crop may cut; the margin follows from it."""
    coverage: float = Field(default=0.95, gt=0, lt=1)
    """Part of the crops that keep to `max_loss` at least, as calibrated."""
    margin: float | None = Field(default=None, ge=0, lt=0.5)
    """Fixed margin on each face instead, as part of the axis."""
    max_stride: int = Field(default=32, ge=1)
    """Pyramid levels with a larger stride are dropped, since boxes snap outward to it."""
    snap_chunks: float = Field(default=0.05, ge=0, le=1)
    """Boxes snap outward to chunks of the source where that adds at most this part of the crop's
    voxels: their chunks are then copied as they are stored, which is ten times faster. 0 never."""
    keep_surround: bool = False
    """Whether a crop keeps the whole volume at a coarse level too, for `ctray restore`."""
    surround_size: int = Field(default=128, ge=8)
    """Longest side of that level, in its voxels; the nearest that halving reaches."""
    ome_version: Literal["0.4", "0.5"] = "0.5"
    """OME-Zarr version of crops and imports."""


class PoolConfig(Section):
    """The actor pool that imports, localizes and crops."""

    min_size: int = Field(default=1, ge=1)
    """Actors at the start, and at least while there is work."""
    max_size: int = Field(default=2, ge=1)
    """Actors at most."""
    num_cpus: float = Field(default=1.0, gt=0)
    """Logical CPUs an actor."""
    num_gpus: float | None = Field(default=None, ge=0)
    """GPUs an actor, fractions allowed; null takes a quarter where the cluster has some."""
    write_pyramid: bool = False
    """Whether the coarse levels of Zarr volumes that have none are kept in `pyramids/` of the run,
    so that only the first pass reads such a volume whole."""

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        return self


class RayConfig(Section):
    """The Ray session that a command starts when it is not given a cluster."""

    address: str | None = None
    """Address of a running cluster; null starts a session on this machine."""
    num_cpus: int | None = Field(default=None, ge=1)
    """Logical CPUs of the own session; null takes the machine's."""
    object_store_mb: int = Field(default=512, ge=80)
    """Object store of the own session, MB."""


# What differs from the defaults above where the task is not rotation; a setting that is given
# wins. Sorting pools everything, since its score needs no orientation, but must recognise what it
# sees: a fourth stage learned twice as fast, full dropout half as fast (tried on phantoms). A bag
# holds many slices, and the paper holds out a quarter of the volumes.
_TASK_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "sorting": {
        "encoder": {
            "widths": (24, 48, 96, 192),
            "output_stride": 16,
            "pool_grid": 1,
            "dropout": 0.05,
        },
        "train": {"batch_size": 8, "run_length": 8, "validation_part": 0.25},
    }
}


class RunConfig(Section):
    """Everything that a run of ctray can be told."""

    task: Task = "rotation"
    """Pretext task, and with it the way to a box: certainty (`rotation`) or variance
    (`sorting`)."""
    catalog: CatalogConfig = CatalogConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    encoder: EncoderConfig = EncoderConfig()
    rotation: RotationConfig = RotationConfig()
    sorting: SortingConfig = SortingConfig()
    train: TrainConfig = TrainConfig()
    localize: LocalizeConfig = LocalizeConfig()
    uncertainty: UncertaintyConfig = UncertaintyConfig()
    refine: RefineConfig = RefineConfig()
    crop: CropConfig = CropConfig()
    pool: PoolConfig = PoolConfig()
    ray: RayConfig = RayConfig()
    job: JobConfig = JobConfig()
    kube: KubeConfig = KubeConfig()

    @model_validator(mode="after")
    def _can_tell_specimens_apart(self) -> RunConfig:
        if self.localize.instances and not self.refine.enabled:
            raise ValueError(
                "localize.instances (--instances) tells specimens apart by the self-trained "
                "network, and refine.enabled is false; set it to true"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_task(cls, data: Any) -> Any:
        task = data.get("task") if isinstance(data, dict) else None
        if not isinstance(task, str):
            return data
        filled = dict(data)
        for section, values in _TASK_DEFAULTS.get(task, {}).items():
            given = filled.get(section, {})
            if isinstance(given, dict):
                # Two that must fit each other: whoever gives one means it with the usual other.
                both = {"widths", "output_stride"}
                own = {k: v for k, v in values.items() if k not in both or not both & given.keys()}
                filled[section] = own | given
        return filled


def load_config(path: str | Path | None, overrides: tuple[str, ...] = ()) -> RunConfig:
    """Read a run's configuration.

    Parameters
    ----------
    path
        YAML file; None gives the defaults.
    overrides
        `section.key=value` strings that win over the file; values are YAML.

    Raises
    ------
    ConfigError
        For an unreadable file, an unknown key (with the nearest known one) or a bad value.
    """
    if path is None:
        return load_config_text("", overrides, "options")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"config {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config {path} is no text in UTF-8: {error.reason}") from error
    return load_config_text(text, overrides, str(path))


def load_config_text(
    text: str, overrides: tuple[str, ...] = (), source: str = "settings"
) -> RunConfig:
    """Configuration from YAML text; `source` names it in errors. See `load_config`."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"config {source} is no YAML: {one_line(error)}") from error
    if data is not None and not isinstance(data, dict):
        raise ConfigError(f"config {source} must be a mapping of sections, not {data!r}")
    data = data or {}
    for item in overrides:
        _apply_override(data, item)
    return parse_config(data, source=source)


def override(config: RunConfig, overrides: tuple[str, ...]) -> RunConfig:
    """Configuration with `section.key=value` strings applied; see `load_config`."""
    data = config.model_dump(mode="json")
    for item in overrides:
        _apply_override(data, item)
    return parse_config(data, source="options")


def parse_config(data: dict[str, Any], source: str = "config") -> RunConfig:
    """Validate a configuration mapping; `ConfigError` names the key and the nearest known one."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(e) for e in error.errors())
        raise ConfigError(f"{source}: {problems}") from error


def _apply_override(data: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {item!r} must read section.key=value")
    node = data
    *sections, last = key.split(".")
    for section in sections:
        child = node.setdefault(section, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {item!r}: {section} is a value, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        first = one_line(error)
        raise ConfigError(f"--set {item!r}: the value is no YAML: {first}") from error


def _explain(error: Any) -> str:
    where = ".".join(str(p) for p in error["loc"]) or "config"
    if error["type"] != "extra_forbidden":
        if error["loc"][:1] == ("job",):
            # What was given may hold a key that somebody put there by mistake.
            return f"{where}: {error['msg']}"
        return f"{where}: {error['msg']} (got {error['input']!r})"
    model: Any = RunConfig
    for part in error["loc"][:-1]:
        model = model.model_fields[part].annotation
    near = difflib.get_close_matches(str(error["loc"][-1]), model.model_fields, n=1, cutoff=0.5)
    known = ", ".join(model.model_fields)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {known}"
    return f"unknown key {where}; {hint}"
