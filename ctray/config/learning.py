"""Settings of the pretext tasks: encoder, examples, training."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from ctray.config.section import MOST_WORKERS, Binds, Rate, Section, Step

# Most weights of the layer that makes the embedding: 1 GiB.
_MOST_WEIGHTS = 2**28


class EncoderConfig(Section):
    """The network that turns a slice into an embedding."""

    name: str = "narrow"
    """`narrow` is ctray's own encoder, for slices of up to about 256 pixels on a CPU. Other names
    are those of segmentation-models-pytorch, such as `resnet18` or `resnet50` (paper)."""
    widths: tuple[Annotated[int, Field(ge=1, le=4096)], ...] = Field(
        default=(24, 48, 96), max_length=8
    )
    """Number of channels of each stage of the narrow encoder. Every stage halves the resolution."""
    output_stride: Literal[8, 16, 32] = 8
    """Input pixels per superpixel along each axis (paper: 32)."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability of spatial dropout after each stage."""
    pool_grid: int = Field(default=4, ge=1, le=64)
    """Cells per side of the pooled feature map that becomes the embedding. 1 is global average
    pooling (paper), which does not learn orientation from small slices."""
    embedding_dim: int = Field(default=128, ge=8, le=16_384)
    """Length of the embedding."""

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
    """Largest distance between a slice and its twin, as a fraction of the axis (paper: 100 of
    2016)."""
    max_angle: float = Field(default=90.0, gt=0, le=180)
    """Largest relative angle in degrees."""
    angle_step: float = Field(default=30.0, ge=0.5, le=180)
    """Distance between neighbouring classes in degrees. 30 gives the seven classes of the paper."""
    axes: tuple[Literal["z", "y", "x"], ...] = Field(
        default=("z", "y", "x"), min_length=1, max_length=3
    )
    """Slicing axes of the examples."""
    drift: float = Field(default=0.2, ge=0, le=2)
    """Strength of the random drift that is added to each slice in training, in standard deviations
    of the grey values. A slice and its twin get different drift: drift that they share would give
    away the angle where there is no sample, above all in clear scans. 0 adds none."""

    @model_validator(mode="after")
    def _whole_steps(self) -> RotationConfig:
        steps = self.max_angle / self.angle_step
        if abs(steps - round(steps)) > 1e-9:
            raise ValueError(
                f"max_angle {self.max_angle} must be a multiple of angle_step {self.angle_step}"
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
    """Number of slices of one volume to sort, which are one example (paper 3.1)."""
    margin: float = Field(default=0.2, gt=0, le=100)
    """Least distance between the scores of two slices in the right order (paper 3.1)."""
    axes: Literal["longest"] | tuple[Literal["z", "y", "x"], ...] = "longest"
    """Slicing axes of the examples, such as `[z]`; `longest` is the longest axis of each volume."""
    sampling: Literal["uniform", "gaussian"] = "uniform"
    """Distribution of the slices over the axis: `uniform`, or `gaussian` for a generalized Gaussian
    around the middle, which avoids the ends without sample."""
    gaussian_shape: float = Field(default=8.0, gt=0, le=1000)
    """Exponent of the generalized Gaussian. 2 is the normal distribution; more is flatter."""
    gaussian_scale: float = Field(default=0.42, gt=0, le=100)
    """Scale of the generalized Gaussian as a fraction of the axis: the distance from the middle at
    which it has fallen to 1/e."""
    augment: Literal["none", "light", "aggressive"] | tuple[Augmentation, ...] = "aggressive"
    """Augmentations in training: `none`, `light` (flip and turn), `aggressive` (all, as in the
    paper), or a list of `flip`, `turn`, `shift`, `rescale`, `grey`, `blur` and `noise`."""

    @model_validator(mode="after")
    def _has_axes(self) -> SortingConfig:
        if not self.axes:
            raise ValueError("axes must name at least one of z, y, x, or be longest")
        return self

    @property
    def augmentations(self) -> frozenset[Augmentation]:
        """Names of the augmentations in training."""
        if self.augment == "none":
            return frozenset()
        if self.augment == "light":
            return frozenset({"flip", "turn"})
        if self.augment == "aggressive":
            return frozenset(get_args(Augmentation))
        return frozenset(self.augment)


def random_displacement(num_slices: int) -> float:
    """Return the mean displacement of a random order: (k**2 - 1) / (3 k), 3.97 for k = 12."""
    return (num_slices**2 - 1) / (3 * num_slices)


class TrainConfig(Section):
    """Training of the encoder, the same with and without Ray."""

    steps: Step = 3000
    """Number of optimizer steps."""
    batch_size: int = Field(default=32, ge=1, le=16_384)
    """Number of examples per step, over all workers. An example is a pair of slices, or the slices
    to sort."""
    learning_rate: Rate = 3e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = Field(default=1e-2, ge=0, le=10)
    """Weight decay of AdamW."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the steps in which the learning rate rises. After that it falls along a
    cosine."""
    run_length: int = Field(default=32, ge=1, le=16_384)
    """Length of a stretch: consecutive examples from one volume, which a reader loads once."""
    interleave: int = Field(default=8, ge=1, le=16_384)
    """Number of stretches that a batch mixes; a multiple of `num_workers`."""
    checkpoint_every: Annotated[Step, Binds.NOTHING] = 250
    """Number of steps between checkpoints."""
    log_every: Annotated[Step, Binds.NOTHING] = 25
    """Number of steps between rows of metrics."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of examples, initial weights and dropout."""
    max_volumes: int = Field(default=64, ge=1, le=1_000_000)
    """Largest number of volumes to train on. In a larger archive they are drawn at random."""
    validation_fraction: float = Field(default=0.0, ge=0, le=0.9)
    """Fraction of these volumes that is held out to measure the accuracy, and never trained on
    (paper and sorting task: 0.25). Held-out volumes are localized like all others."""
    num_workers: Annotated[int, Binds.NOTHING] = Field(default=1, ge=1, le=MOST_WORKERS)
    """Number of Ray Train workers."""
    num_readers: Annotated[int, Binds.NOTHING] = Field(default=2, ge=1, le=MOST_WORKERS)
    """Number of Ray Data readers per worker. It does not change the weights."""
    num_gpus_per_worker: Annotated[float | None, Binds.NOTHING] = Field(default=None, ge=0, le=1024)
    """GPUs per worker; null takes one if the cluster has enough."""

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
