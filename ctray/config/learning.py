"""Settings of the pretext tasks: encoder, examples, training."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from ctray.config.section import MOST_WORKERS, Binds, Rate, Section, Step

# Of the layer that makes the embedding: 1 GiB.
_MOST_WEIGHTS = 2**28


class EncoderConfig(Section):
    """The network that embeds one slice."""

    name: str = "narrow"
    """`narrow` (ours, for slices up to about 256 on a CPU) or a name that
    segmentation-models-pytorch knows, such as `resnet18` or `resnet50` (paper)."""
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(24, 48, 96), max_length=8
    )
    """Channels of the narrow encoder's stages; each halves the resolution."""
    output_stride: Literal[8, 16, 32] = 8
    """Input pixels per superpixel (paper: 32)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Spatial dropout after each stage."""
    pool_grid: int = Field(default=4, ge=1, le=64)
    """Cells per side of the pooled feature map that becomes the embedding; 1 is global average
    pooling, the paper's plain form, which does not learn orientation from small slices."""
    embedding_dim: int = Field(default=128, ge=8, le=16_384)
    """Length of a slice's embedding."""

    @model_validator(mode="after")
    def _fits_into_memory(self) -> EncoderConfig:
        last = self.widths[-1] if self.widths else 1
        weights = last * self.pool_grid**2 * self.embedding_dim
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"widths, pool_grid and embedding_dim together give {weights:,} weights, and "
                f"{_MOST_WEIGHTS:,} is the most; lower one of them"
            )
        return self


class RotationConfig(Section):
    """The rotation pretext task (paper 2.1)."""

    twin_range: float = Field(default=100 / 2016, gt=0, le=0.5)
    """Largest distance between a slice and its twin, as part of the axis (paper: 100 of 2016)."""
    max_angle: float = Field(default=90.0, gt=0, le=180)
    """Largest relative angle, degrees."""
    angle_step: float = Field(default=30.0, ge=0.5, le=180)
    """Distance of neighbouring classes, degrees; 90 by 30 gives the paper's seven classes."""
    axes: tuple[Literal["z", "y", "x"], ...] = Field(
        default=("z", "y", "x"), min_length=1, max_length=3
    )
    """Slicing axes that examples are taken along."""
    drift: float = Field(default=0.2, ge=0, le=2)
    """Slow change of grey values that is added to each slice in training, another one to its twin,
    as part of the grey values' standard deviation: drift that they shared would tell the angle
    where there is no sample, in clear scans above all. 0 adds none."""

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

    num_slices: int = Field(default=12, ge=2, le=1024)
    """Slices of one volume that are put in order: one example (paper 3.1)."""
    margin: float = Field(default=0.2, gt=0, le=100)
    """Least distance of the scores of two slices in the right order (paper 3.1)."""
    axes: Literal["longest"] | tuple[Literal["z", "y", "x"], ...] = "longest"
    """Slicing axes that examples are taken along; `longest` is each volume's own."""
    sampling: Literal["uniform", "gaussian"] = "uniform"
    """`uniform` over the axis, or a generalized Gaussian about its middle, which spares the ends
    that hold no sample."""
    gaussian_shape: float = Field(default=8.0, gt=0, le=1000)
    """Exponent of the generalized Gaussian: 2 is the normal distribution, more is flatter."""
    gaussian_scale: float = Field(default=0.42, gt=0, le=100)
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

    steps: Step = 3000
    """Optimizer steps."""
    batch_size: int = Field(default=32, ge=1, le=16_384)
    """Examples (pairs of slices, or bags of them to sort) a step, over all workers."""
    learning_rate: Rate = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    """AdamW weight decay."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Part of the steps in which the learning rate rises; it falls along a cosine after that."""
    run_length: int = Field(default=32, ge=1, le=16_384)
    """Consecutive examples that share one volume, so that a reader loads it once."""
    interleave: int = Field(default=8, ge=1, le=16_384)
    """Runs that a batch mixes; a multiple of the number of workers."""
    checkpoint_every: Annotated[Step, Binds.NOTHING] = 250
    """Steps between checkpoints."""
    log_every: Annotated[Step, Binds.NOTHING] = 25
    """Steps between rows of metrics."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of examples, initial weights and dropout."""
    max_volumes: int = Field(default=64, ge=1, le=1_000_000)
    """Volumes to learn from; of a larger archive a seeded choice is taken."""
    validation_part: float = Field(default=0.0, ge=0, le=0.9)
    """Part of them that is held out to watch the learning; never trained on (paper: 3 to 1, the
    sorting task's default). Their boxes are found all the same."""
    num_workers: Annotated[int, Binds.NOTHING] = Field(default=1, ge=1, le=MOST_WORKERS)
    """Ray Train workers."""
    num_readers: Annotated[int, Binds.NOTHING] = Field(default=2, ge=1, le=MOST_WORKERS)
    """Ray Data readers a worker; they do not change what is learned."""
    num_gpus_per_worker: Annotated[float | None, Binds.NOTHING] = Field(default=None, ge=0, le=1024)
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
