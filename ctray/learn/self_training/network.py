"""The self-trained network: it decides whether the middle slice of a slab holds sample.

Its map of a slice is blurred within the slice but describes that slice alone. So faces along the
slicing axis are sharp to one slice.

Legend of tensor names: B slabs, K grey values and cues, S slices of a slab, C channels, H, W pixels
or cells, N slices.
"""

from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from ctray.core.geometry import AXES
from ctray.learn.pretext.encoder import SliceEncoder
from ctray.learn.self_training.cues import NUM_CUES, SlabSource
from ctray.learn.self_training.slabs import slab_tensor

FloatArray = npt.NDArray[np.float64]
MapArray = npt.NDArray[np.float32]
AxisMaps = tuple[MapArray, MapArray, MapArray]

# Pixels per cell of the map, which is fine enough for a tail, and of the coarser map that adds
# context.
CELL = 4
_CONTEXT = 8
_WIDTH = 48
_CUE_WIDTH = 32
_TURNS = 4
_BATCH = 64


class SelfTrainedNetwork(nn.Module):
    """Log-odds that the middle slice of a slab holds sample, from an encoder's first stages.

    Every cell of the slice gets its own evidence. A slice holds sample if any of its cells does, so
    the log-odds of the slice are a log-sum-exp over cells, which its surest cells dominate.
    Training has no labels for cells.

    Parameters
    ----------
    encoder
        Encoder trained on the pretext task. It is copied and not changed.
    neighbours
        Number of slices on each side of the middle slice.
    cues
        Whether the network also gets cues (`ctray.learn.self_training.cues`).
    """

    def __init__(self, encoder: SliceEncoder, neighbours: int, *, cues: bool = True) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.neighbours = neighbours
        self.cues = _cue_layers(NUM_CUES * (2 * neighbours + 1)) if cues else None
        _widen_first_convolution(self.encoder, neighbours)
        with torch.no_grad():
            slab = torch.zeros(1, 2 * neighbours + 1, 2 * _CONTEXT, 2 * _CONTEXT)
            self.encoder.eval()
            channels = [m.shape[1] for m in self.encoder.pyramid(slab, (CELL, _CONTEXT))]
        self.fine = nn.Conv2d(channels[0], _WIDTH, 1)
        self.coarse = nn.Conv2d(channels[1], _WIDTH, 1)
        self.join = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTH),
            nn.ReLU(),
            nn.Conv2d(_WIDTH, 1, 1),
        )
        # Negative, because most slices near a face and all slices beyond it are empty.
        self.bias = nn.Parameter(torch.tensor(-2.0))

    def maps(self, x_BKSHW: Tensor) -> Tensor:
        """Evidence of every cell, (B, H / 4, W / 4), for slabs from `slab_tensor`."""
        x_BSHW = x_BKSHW[:, 0].contiguous(memory_format=torch.channels_last)
        fine, coarse = self.encoder.pyramid(x_BSHW, (CELL, _CONTEXT))
        coarse = functional.interpolate(
            self.coarse(coarse), size=fine.shape[-2:], mode="bilinear", align_corners=False
        )
        joined = self.fine(fine) + coarse
        if self.cues is not None:
            cues_BCHW = x_BKSHW[:, 1:].flatten(1, 2)
            joined = joined + self.cues(cues_BCHW.contiguous(memory_format=torch.channels_last))
        return cast(Tensor, self.join(joined))[:, 0]

    def pool(self, map_BHW: Tensor) -> Tensor:
        """Log-odds (B,) of slices from the evidence of their cells."""
        cells = map_BHW.flatten(1)
        # Half the logarithm of the number of cells is a compromise between mean and maximum.
        return torch.logsumexp(cells, dim=1) - 0.5 * math.log(cells.shape[1]) + self.bias

    def forward(self, x_BKSHW: Tensor) -> Tensor:
        """Log-odds (B,) that the middle slices of slabs (B, K, S, H, W) hold sample."""
        return self.pool(self.maps(x_BKSHW))


def network_canvas(side: int) -> int:
    """Smallest side in pixels that is at least `side` and that the network's strides divide."""
    return -(-side // (2 * _CONTEXT)) * (2 * _CONTEXT)


@torch.inference_mode()
def evidence_map(network: SelfTrainedNetwork, source: SlabSource, axis: int, side: int) -> MapArray:
    """Evidence of every cell of every slice across `axis`, (N, side / 4, side / 4), float32.

    The evidence is the mean over four turns of the slices.
    """
    network.eval()
    device = network.bias.device
    maps = []
    for start in range(0, source.shape[axis], _BATCH):
        middles = range(start, min(source.shape[axis], start + _BATCH))
        x_BKSHW = slab_tensor(source, axis, middles, network.neighbours, side, device)
        total = torch.zeros(())
        for turn in range(_TURNS):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                found = network.maps(torch.rot90(x_BKSHW, turn, (3, 4)))
            total = total.to(device) + torch.rot90(found.float(), -turn, (1, 2))
        maps.append((total / _TURNS).cpu().numpy())
    return np.concatenate(maps)


def evidence_maps(network: SelfTrainedNetwork, source: SlabSource, side: int) -> AxisMaps:
    """Evidence along all three axes, see `evidence_map`.

    `side` is the side of the canvas in pixels. It is rounded up to a multiple of the strides.
    """
    side = network_canvas(side)
    z, y, x = (evidence_map(network, source, axis, side) for axis in range(3))
    return (z, y, x)


@torch.inference_mode()
def pooled_profiles(network: SelfTrainedNetwork, maps: AxisMaps) -> dict[str, FloatArray]:
    """Log-odds that a slice holds sample, (extent,) float64, by the name of the axis."""
    profiles = {}
    for name, axis_maps in zip(AXES, maps, strict=True):
        cells = torch.from_numpy(axis_maps).to(network.bias.device)
        profiles[name] = network.pool(cells).cpu().numpy().astype(np.float64)
    return profiles


def _cue_layers(channels: int) -> nn.Sequential:
    """Layers from cues of `channels` slices to features that are added to the fine map."""
    return nn.Sequential(
        nn.Conv2d(channels, _CUE_WIDTH, CELL, stride=CELL, bias=False),
        nn.BatchNorm2d(_CUE_WIDTH),
        nn.ReLU(),
        nn.Conv2d(_CUE_WIDTH, _WIDTH, 1),
    )


def _widen_first_convolution(encoder: nn.Module, neighbours: int) -> None:
    """Widen the encoder's first convolution to a slab, with initial weights from a single slice."""
    name, first = next((n, m) for n, m in encoder.named_modules() if isinstance(m, nn.Conv2d))
    wide = nn.Conv2d(
        2 * neighbours + 1,
        first.out_channels,
        cast("tuple[int, int]", first.kernel_size),
        cast("tuple[int, int]", first.stride),
        cast("tuple[int, int]", first.padding),
        bias=first.bias is not None,
    )
    with torch.no_grad():
        weights = torch.tensor([_share(d) for d in range(-neighbours, neighbours + 1)])
        wide.weight.copy_(first.weight.mean(dim=1, keepdim=True) * weights[None, :, None, None])
        if first.bias is not None and wide.bias is not None:
            wide.bias.copy_(first.bias)
    parent = encoder.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], wide)


def _share(distance: int) -> float:
    """Initial weight of a slice of the slab."""
    return 0.6 if distance == 0 else 0.2 / abs(distance)
