"""Slices a second fed to training, against the same loop on examples that are in memory already.

    python -m tests.bench.training [--rounds 8] [--repeats 5]

Trains with the default network on phantoms of 64 voxels: once fed by the readers of
`ctray.executors.ray.stream`, as a training worker is, and once with the very same rounds from a
list. A run starts anew in every turn; its first rounds, in which readers start, do not count.
Waiting is the time from the end of a round's last step until the next round is there. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ray
import torch

from ctray.config import RayConfig, RunConfig, parse_config
from ctray.executors.ray.progress import Pace
from ctray.executors.ray.session import ray_session
from ctray.executors.ray.stream import example_stream, rounds
from ctray.learn.prepared_files import read_prepared
from ctray.learn.pretext.examples import Rows, num_rounds, steps_per_round
from ctray.learn.pretext.rows import canvas_side
from ctray.learn.pretext.training import Trainer, local_rounds, train
from ctray.phantom import make_phantom, preset
from ctray.preprocess.prepare import prepare
from tests.bench.measuring import in_turn, machine, row, spread, table_head

SIDE = 64
# Two rounds are read ahead of training: their examples were there before it began.
SKIPPED = 3
# Ray's default; this process would get all of the cores otherwise, and readers none.
WORKER_NICENESS = 15


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8, help="that count, of 8 steps each")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = parse_config({"preprocess": {"working_size": SIDE}})
    steps = (SKIPPED + options.rounds) * steps_per_round(config.train)
    config = parse_config({"preprocess": {"working_size": SIDE}, "train": {"steps": steps}})
    with (
        tempfile.TemporaryDirectory(prefix="ctray-training-") as folder,
        ray_session(RayConfig(num_cpus=os.cpu_count(), object_store_mb=200)),
    ):
        # As training processes of Ray are, and readers beside them.
        os.nice(WORKER_NICENESS)
        measure(config, write_volumes(Path(folder), options.volumes, config), options.repeats)


def write_volumes(folder: Path, count: int, config: RunConfig) -> list[str]:
    """Prepared phantoms, as readers open them."""
    urls = []
    for index in range(count):
        phantom = make_phantom(preset("paper", size=SIDE, seed=9000 + index))
        path = folder / f"{index}.npz"
        path.write_bytes(prepare(phantom.volume, (1, 1, 1), config.preprocess).to_bytes())
        urls.append(str(path))
    return urls


@dataclass
class Marks:
    """When each round was asked for, and when it was there."""

    asked: list[float] = field(default_factory=list)
    there: list[float] = field(default_factory=list)

    def timed(self, source: Iterable[Rows]) -> Iterator[Rows]:
        """Rounds of `source`, watched."""
        iterator = iter(source)
        while True:
            self.asked.append(time.perf_counter())
            try:
                rows = next(iterator)
            except StopIteration:
                return
            self.there.append(time.perf_counter())
            yield rows

    def seconds(self, end: float) -> float:
        """From the request for the first round that counts to the end."""
        return end - self.asked[SKIPPED]

    def waited(self) -> float:
        """What of that was spent waiting for rounds."""
        pairs = zip(self.asked, self.there, strict=False)
        return sum(there - asked for asked, there in list(pairs)[SKIPPED:])


def measure(config: RunConfig, urls: list[str], repeats: int) -> None:
    """Both ways by turns; prints a row each."""
    volumes = [read_prepared(url) for url in urls]
    side = max(canvas_side(volume.shape, config) for volume in volumes)
    load = local_rounds(volumes, config, side)
    in_memory = [load(index) for index in range(num_rounds(config))]
    waited: dict[str, list[float]] = {"stream": [], "memory": []}

    def run(way: str, source: Iterable[Rows]) -> float:
        marks = Marks()
        train(Trainer(config, side, device=torch.device("cpu")), marks.timed(source))
        seconds = marks.seconds(time.perf_counter())
        waited[way].append(marks.waited() / seconds)
        return seconds

    def streamed() -> float:
        pace = ray.remote(num_cpus=0)(Pace).remote()

        def advance(index: int) -> None:
            pace.advance.remote(0, index)

        stream = example_stream(config, urls, side, first_round=0, pace=pace)
        return run("stream", rounds(stream, config, advance))

    seconds = in_turn({"stream": streamed, "memory": lambda: run("memory", in_memory)}, repeats)
    examples = (num_rounds(config) - SKIPPED) * len(in_memory[0]["mean"])
    # A pair of slices an example.
    rates = {way: 2 * examples / statistics.median(found) for way, found in seconds.items()}
    print(f"{machine()}, {torch.get_num_threads()} threads, {config.train.num_readers} readers\n")
    print(table_head("what", "slices a second", "of a step spent waiting for data"))
    for way, name in (("memory", "examples in memory"), ("stream", "readers")):
        part = statistics.median(waited[way])
        print(row(name, f"{rates[way]:.0f}", f"{part:.1%} (at most {max(waited[way]):.1%})"))
    print(row("readers / memory", spread(seconds["memory"], seconds["stream"]), ""))


if __name__ == "__main__":
    main()
