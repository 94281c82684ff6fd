"""Self-training: one network learns the appearance of sample from the boxes of many volumes.

The boxes of the pretext task are off by some slices: one cuts a tail, another keeps an empty
stretch. Over the archive these errors have a median of 0. A network that learns from all boxes at
once follows the majority of them. So it can find a tail that the box of a single volume missed. No
labels are used.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ctray.config import RunConfig
from ctray.core.errors import TrainingError
from ctray.learn.pretext.encoder import SliceEncoder, on_device, reseed_dropout
from ctray.learn.pretext.training import schedule
from ctray.learn.self_training.cues import NUM_CUES, SlabSource
from ctray.learn.self_training.network import SelfTrainedNetwork, network_canvas
from ctray.learn.self_training.slabs import slab_tensor
from ctray.preprocess.prepare import Prepared

# Half-open range of slices at the working level for z, y, x; None if the volume has no sample.
Ranges = tuple[tuple[float, float], tuple[float, float], tuple[float, float]] | None

_VOLUMES_A_STEP = 6
# Largest number of volumes in memory, and the number of steps for which they stay.
_RESIDENT = 12
_BLOCK_STEPS = 40
_RESIDENT_BYTES = 2**29
# One byte each for grey values, grey values with added noise, and every cue.
_BYTES_A_VOXEL = 2 + NUM_CUES
_SHIFT = 3
_GAIN = 0.05
_WARMUP = 0.15
# Separates these draws from the draws of the pretext task, which use the same seed.
_STREAM = 7001


@dataclass(frozen=True, kw_only=True, slots=True)
class SlabExamples:
    """Examples of one volume for one step, as plain numbers that depend only on (seed, step).

    Parameters
    ----------
    volume
        Index of the training volume.
    axis
        Slicing axis: 0, 1, 2 for z, y, x.
    middles
        Middle slices of the slabs, (B,).
    holds
        Whether each middle slice lies in the box, (B,).
    turn, flips, shift, gain
        Number of quarter turns, flips of the slab and of its columns, shift of rows and columns in
        pixels, and factor on the grey values.
    """

    volume: int
    axis: int
    middles: list[int]
    holds: list[bool]
    turn: int
    flips: tuple[bool, bool]
    shift: tuple[int, int]
    gain: float


def resident_volumes(seed: int, step: int, num_volumes: int, volume_bytes: int) -> list[int]:
    """Volumes in memory at `step`: all if they are few, otherwise a seeded choice."""
    most = max(2, min(_RESIDENT, _RESIDENT_BYTES // max(1, volume_bytes)))
    if num_volumes <= most:
        return list(range(num_volumes))
    rng = np.random.default_rng([seed, _STREAM, 1, step // _BLOCK_STEPS])
    return sorted(rng.choice(num_volumes, most, replace=False).tolist())


def draw_slabs(
    config: RunConfig,
    step: int,
    resident: Sequence[int],
    ranges: Sequence[Ranges],
    shapes: Sequence[tuple[int, int, int]],
) -> list[SlabExamples]:
    """Examples of one step.

    Parameters
    ----------
    config
        Configuration. Only the `self_train` section and the seed of `train` are used.
    step
        Number of the step.
    resident
        Volumes to draw from.
    ranges, shapes
        Boxes and shapes of all training volumes, at the working level.
    """
    rng = np.random.default_rng([config.train.seed, _STREAM, 2, step])
    drawn = []
    for _ in range(_VOLUMES_A_STEP):
        volume = resident[int(rng.integers(len(resident)))]
        axis = int(rng.integers(3))
        extent = shapes[volume][axis]
        box = ranges[volume]
        middles = _middles(rng, config, extent, box[axis] if box else None)
        drawn.append(
            SlabExamples(
                volume=volume,
                axis=axis,
                middles=middles,
                holds=[box is not None and box[axis][0] < m + 0.5 < box[axis][1] for m in middles],
                turn=int(rng.integers(4)),
                flips=(bool(rng.random() < 0.5), bool(rng.random() < 0.5)),
                shift=_two(rng.integers(-_SHIFT, _SHIFT + 1, 2)),
                gain=float(np.exp(rng.normal(0, _GAIN))),
            )
        )
    return drawn


def _two(values: npt.NDArray[np.int64]) -> tuple[int, int]:
    return (int(values[0]), int(values[1]))


def _middles(
    rng: np.random.Generator, config: RunConfig, extent: int, held: tuple[float, float] | None
) -> list[int]:
    count = config.self_train.slabs // _VOLUMES_A_STEP
    near = round(count * config.self_train.near_fraction) if held else 0
    anywhere = rng.integers(0, extent, count - near)
    faces = np.array(held or (0.0, 0.0))[rng.integers(0, 2, near)]
    reach = max(2.0, extent / 8)
    close = np.floor(faces + rng.uniform(-reach, reach, near))
    both = np.concatenate([np.clip(close, 0, extent - 1), anywhere])
    return [int(m) for m in both]


class SelfTrainer:
    """Trains the self-trained network on the boxes of an archive; `advance` runs some steps.

    Parameters
    ----------
    encoder
        Encoder of the pretext task; it is copied.
    load
        Returns a training volume by its index. The volume is kept while it is in use.
    ranges, shapes
        Box and shape of each training volume at the working level.
    config, side, device
        Settings, side of the square canvas in pixels, and device.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        load: Callable[[int], Prepared],
        ranges: Sequence[Ranges],
        shapes: Sequence[tuple[int, int, int]],
        config: RunConfig,
        side: int,
        device: torch.device,
    ) -> None:
        if not ranges:
            raise TrainingError("there is no volume to learn from; all volumes failed")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            settings = config.self_train
            self.network = SelfTrainedNetwork(encoder, settings.neighbours, cues=settings.cues)
        self.network = on_device(self.network, device)
        self.step = 0
        self._load, self._ranges, self._shapes = load, ranges, shapes
        self._config, self._device = config, device
        self._side = network_canvas(side)
        self._resident: dict[int, SlabSource] = {}
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.self_train.learning_rate, weight_decay=1e-2
        )

    @property
    def finished(self) -> bool:
        """Whether the last step is done."""
        return self.step >= self._config.self_train.steps

    def advance(self, steps: int, longest_s: float = math.inf) -> dict[str, float]:
        """Run some steps; returns step number, mean loss and slices per second.

        Parameters
        ----------
        steps
            Maximum number of steps.
        longest_s
            Seconds after which no further step starts.

        Raises
        ------
        TrainingError
            If the loss is not finite.
        """
        began, first = time.monotonic(), self.step
        total = torch.zeros((), device=self._device)
        last = min(first + steps, self._config.self_train.steps)
        while self.step < last:
            total += self._one_step()
            if time.monotonic() - began >= longest_s:
                break
        done = self.step - first
        loss = float(total) / max(1, done)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss of self-training is {loss} at step {self.step}; lower "
                f"self_train.learning_rate ({self._config.self_train.learning_rate})"
            )
        rate = done * self._config.self_train.slabs / max(time.monotonic() - began, 1e-9)
        return {"step": float(self.step), "loss": loss, "slices_per_second": rate}

    def _one_step(self) -> Tensor:
        rate = self._config.self_train.learning_rate * schedule(
            self.step, self._config.self_train.steps, _WARMUP
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        x_BKSHW, holds_B = self._batch()
        self.network.train()
        reseed_dropout(self.network, self._config.train.seed * 2**20 + self.step)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            logits = self.network(x_BKSHW)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), holds_B)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self._optimizer.step()
        self.step += 1
        return loss.detach()

    def _batch(self) -> tuple[Tensor, Tensor]:
        volume_bytes = _BYTES_A_VOXEL * max(math.prod(shape) for shape in self._shapes)
        seed = self._config.train.seed
        resident = resident_volumes(seed, self.step, len(self._ranges), volume_bytes)
        self._resident = {i: self._resident.get(i) or self._source(i) for i in resident}
        parts, holds = [], []
        for slabs in draw_slabs(self._config, self.step, resident, self._ranges, self._shapes):
            parts.append(self._augmented(slabs))
            holds += slabs.holds
        return torch.cat(parts), torch.tensor(holds, dtype=torch.float32, device=self._device)

    def _source(self, volume: int) -> SlabSource:
        return SlabSource.of(self._load(volume), cues=self._config.self_train.cues)

    def _augmented(self, slabs: SlabExamples) -> Tensor:
        neighbours = self._config.self_train.neighbours
        x_BKSHW = slab_tensor(
            self._resident[slabs.volume],
            slabs.axis,
            slabs.middles,
            neighbours,
            self._side,
            self._device,
        )
        x_BKSHW = torch.rot90(x_BKSHW, slabs.turn, (3, 4))
        flipped = [d for d, wanted in zip((2, 4), slabs.flips, strict=True) if wanted]
        x_BKSHW = x_BKSHW.flip(flipped) if flipped else x_BKSHW
        x_BKSHW = torch.roll(x_BKSHW, slabs.shift, (3, 4))
        # Cues get no gain: their unit is already the deviation of their volume.
        return torch.cat([x_BKSHW[:, :1] * slabs.gain, x_BKSHW[:, 1:]], dim=1)
