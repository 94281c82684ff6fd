"""Encoders of single slices, and the models of the two pretext tasks on top of them.

Legend of tensor names: B slices, C channels, H, W pixels or superpixels, D embedding, K classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctray.config import EncoderConfig, RotationConfig
from ctray.core.errors import ConfigError

Network = TypeVar("Network", bound=nn.Module)


def on_device(network: Network, device: torch.device) -> Network:
    """Network moved to `device`, with weights in channels-last layout for fast convolutions."""
    return network.to(device).to(memory_format=torch.channels_last)


class SpatialDropout(nn.Module):
    """Drops whole channels with probability `p`, drawing from its own generator.

    torch's dropout draws from the global generator, so that a resumed run, or a second run in the
    same process, would get other masks.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        # Set by `monte_carlo`: the number of samples, and whether the batch grows here.
        self.samples = 0
        self.expands = False
        self._generators: dict[str, torch.Generator] = {}
        self._masks: Tensor | None = None
        self._seed = 0

    def reseed(self, seed: int) -> None:
        """Restart the masks from `seed`."""
        self._seed = seed
        self._generators.clear()
        self._masks = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Same shape, with some channels 0 in training. `samples` times the rows if `expands`."""
        if self.samples:
            return self._sample(x_BCHW)
        if not self.training or self.p == 0:
            return x_BCHW
        return self._drop(x_BCHW, self._draw(x_BCHW, x_BCHW.shape[0]))

    def _sample(self, x_BCHW: Tensor) -> Tensor:
        """Apply the same `samples` masks to every input. They stay until the next `reseed`."""
        if self.expands:
            x_BCHW = x_BCHW.repeat_interleave(self.samples, dim=0)
        if self._masks is None:
            self._masks = self._draw(x_BCHW, self.samples)
        return self._drop(x_BCHW, self._masks.repeat(len(x_BCHW) // self.samples, 1, 1, 1))

    def _draw(self, x_BCHW: Tensor, count: int) -> Tensor:
        device = x_BCHW.device
        rng = self._generators.get(str(device))
        if rng is None:
            rng = torch.Generator(device).manual_seed(self._seed)
            self._generators[str(device)] = rng
        shape = (count, x_BCHW.shape[1], 1, 1)
        return torch.rand(shape, generator=rng, device=device) >= self.p

    def _drop(self, x_BCHW: Tensor, keep: Tensor) -> Tensor:
        return x_BCHW * keep.to(x_BCHW.dtype) / (1 - self.p)


def reseed_dropout(model: nn.Module, seed: int) -> None:
    """Make all further dropout masks a function of `seed`."""
    for place, module in enumerate(m for m in model.modules() if isinstance(m, SpatialDropout)):
        # torch takes seeds of 64 bits.
        module.reseed((seed * 1009 + place) % 2**63)


@contextmanager
def monte_carlo(model: nn.Module, samples: int, seed: int) -> Iterator[None]:
    """Apply `samples` dropout masks to every input; all other layers work as in evaluation.

    The batch grows at the first dropout, so that earlier layers run once per input. The output has
    `samples` consecutive rows for each input. The masks depend only on `seed` and are the same for
    every input.
    """
    dropouts = [m for m in model.modules() if isinstance(m, SpatialDropout)]
    model.eval()
    reseed_dropout(model, seed)
    dropouts[0].expands = True
    for dropout in dropouts:
        dropout.samples = samples
    try:
        yield
    finally:
        dropouts[0].expands = False
        for dropout in dropouts:
            dropout.samples = 0


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x_BCHW)))
        return functional.relu(self.norm2(self.conv2(y)) + self.skip(x_BCHW))


class NarrowBackbone(nn.Module):
    """A few narrow residual stages, enough for slices of 64 to 256 pixels and fast on a CPU."""

    def __init__(self, widths: tuple[int, ...], output_stride: int, dropout: float) -> None:
        super().__init__()
        if 2 ** len(widths) != output_stride:
            raise ConfigError(
                f"encoder.widths {widths} give an output stride of {2 ** len(widths)}, not "
                f"{output_stride}; give one width per halving"
            )
        stem = nn.Sequential(
            nn.Conv2d(1, widths[0], 5, 2, 2, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        stages: list[nn.Module] = [nn.Sequential(stem, SpatialDropout(dropout))]
        for inputs, outputs in itertools.pairwise(widths):
            block = _ResidualBlock(inputs, outputs, 2)
            stages.append(nn.Sequential(block, SpatialDropout(dropout)))
        self.stages = nn.Sequential(*stages)
        self.out_channels = widths[-1]

    def forward(self, x_BCHW: Tensor, stride: int | None = None) -> Tensor:
        """Feature map of slices (B, 1, H, W): the last one, or that of a smaller stride."""
        stages = self.stages if stride is None else self.stages[: stride.bit_length() - 1]
        return cast(Tensor, stages(x_BCHW))

    def pyramid(self, x_BCHW: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Feature maps of several strides, rising, from one pass."""
        maps = []
        for place, stage in enumerate(self.stages[: max(strides).bit_length() - 1]):
            x_BCHW = stage(x_BCHW)
            if 2 ** (place + 1) in strides:
                maps.append(x_BCHW)
        return maps


class LibraryBackbone(nn.Module):
    """An encoder of segmentation-models-pytorch with spatial dropout after each stage."""

    def __init__(self, name: str, output_stride: int, dropout: float) -> None:
        super().__init__()
        import segmentation_models_pytorch as smp

        try:
            self.encoder: Any = smp.encoders.get_encoder(
                name, in_channels=1, weights=None, output_stride=output_stride
            )
        except (KeyError, ValueError) as error:
            raise ConfigError(f"encoder.name {name!r} is not usable: {error}") from error
        self.out_channels = int(self.encoder.out_channels[-1])
        stages = [m for n, m in self.encoder.named_children() if n.startswith("layer")]
        self.dropouts = nn.ModuleList(SpatialDropout(dropout) for _ in stages or [None])
        for stage, drop in zip(stages, self.dropouts, strict=False):
            stage.register_forward_hook(lambda _m, _i, out, drop=drop: drop(out))
        self._drop_last = not stages
        self._output_stride = output_stride

    def forward(self, x_BCHW: Tensor, stride: int | None = None) -> Tensor:
        """Feature map of slices (B, 1, H, W): the last one, or that of a smaller stride."""
        maps = self.encoder(x_BCHW)
        if stride is not None and stride < self._output_stride:
            return cast(Tensor, maps[stride.bit_length() - 1])
        y_BCHW = maps[-1]
        return cast(Tensor, self.dropouts[0](y_BCHW) if self._drop_last else y_BCHW)

    def pyramid(self, x_BCHW: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Feature maps of several strides, rising, from one pass."""
        maps = self.encoder(x_BCHW)
        return [maps[stride.bit_length() - 1] for stride in strides]


class SliceEncoder(nn.Module):
    """Embeds one slice.

    The pooled map keeps `pool_grid` x `pool_grid` cells, because pooling to a single cell would
    hide the orientation that the rotation head has to compare.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.backbone: NarrowBackbone | LibraryBackbone
        if config.name == "narrow":
            self.backbone = NarrowBackbone(config.widths, config.output_stride, config.dropout)
        else:
            self.backbone = LibraryBackbone(config.name, config.output_stride, config.dropout)
        self.pool_grid = config.pool_grid
        self.embedding_dim = config.embedding_dim
        cells = config.pool_grid**2
        self.project = nn.Linear(self.backbone.out_channels * cells, config.embedding_dim)

    def superpixels(self, x_BCHW: Tensor, stride: int | None = None) -> Tensor:
        """Feature map (B, C, H / stride, W / stride); with stride None, the last one.

        The field of superpixel i is centred on pixel i x stride, because every halving of the
        encoders is centred on the even pixels.
        """
        return cast(Tensor, self.backbone(x_BCHW, stride))

    def pyramid(self, x_BCHW: Tensor, strides: Sequence[int]) -> list[Tensor]:
        """Feature maps (B, C, H / stride, W / stride) of several strides in ascending order."""
        return self.backbone.pyramid(x_BCHW, strides)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Embedding (B, D) of slices (B, 1, H, W)."""
        map_BCHW = functional.adaptive_avg_pool2d(self.superpixels(x_BCHW), self.pool_grid)
        return cast(Tensor, self.project(map_BCHW.flatten(1)))


class RotationModel(nn.Module):
    """Siamese encoder and a two-layer head on the concatenated embeddings (paper figure 2)."""

    def __init__(self, encoder: EncoderConfig, rotation: RotationConfig) -> None:
        super().__init__()
        self.encoder = SliceEncoder(encoder)
        hidden = encoder.embedding_dim
        self.head = nn.Sequential(
            nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, rotation.num_classes)
        )

    def embed(self, x_BCHW: Tensor) -> Tensor:
        """Embedding (B, D) of B views."""
        return cast(Tensor, self.encoder(x_BCHW))

    def compare(self, a_BD: Tensor, b_BD: Tensor) -> Tensor:
        """Logits (B, K) of the angle of b relative to a."""
        return cast(Tensor, self.head(torch.cat([a_BD, b_BD], dim=1)))

    def forward(self, a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        """Logits (B, K) for pairs of views."""
        both = self.embed(torch.cat([a_BCHW, b_BCHW]))
        a_BD, b_BD = both.chunk(2)
        return self.compare(a_BD, b_BD)


class SortingModel(nn.Module):
    """Encoder and a head that gives one score per slice, to order the slices (paper 2.1)."""

    def __init__(self, encoder: EncoderConfig) -> None:
        super().__init__()
        self.encoder = SliceEncoder(encoder)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(encoder.embedding_dim, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Scores (B,) of slices (B, 1, H, W)."""
        return cast(Tensor, self.head(self.encoder(x_BCHW)))[:, 0]


PretextModel = RotationModel | SortingModel
