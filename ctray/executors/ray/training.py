"""Training of the encoder on Ray Train, with any number of workers and exact resumption."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
from ray.data import ExecutionOptions
from ray.train import DataConfig, FailureConfig, ScalingConfig
from ray.train import RunConfig as RayRunConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ctray.config import RunConfig
from ctray.core.errors import TrainingError
from ctray.executors.progress import Row, Throttle
from ctray.executors.ray.autoscaling import autoscales, no_room, wait_for_room
from ctray.executors.ray.errors import last_line, own_error
from ctray.executors.ray.leftovers import scratch_folder
from ctray.executors.ray.progress import Pace, Progress
from ctray.executors.ray.session import cluster_cpus, cluster_gpus
from ctray.executors.ray.stream import example_stream, keep_data_actors_here, rounds
from ctray.executors.threads import training_threads
from ctray.learn.pretext.checkpoint import checkpoint_step, restore, save_checkpoint
from ctray.learn.pretext.examples import steps_per_round
from ctray.learn.pretext.training import Trainer, first_round, train
from ctray.learn.pretext.work import LASTING_ERRORS, EncoderTraining
from ctray.records.events import nobody


def train_encoder(
    training: EncoderTraining,
    on_log: Callable[[Row], None] = lambda row: None,
    on_step: Callable[[int], None] = lambda step: None,
    on_wait: Callable[[str], None] = nobody,
) -> None:
    """Train the encoder; see `ctray.executors.protocol.Executor`.

    Every node must be able to read the files of `training` and write its checkpoint.
    """
    # The workers check this too, but Ray Train starts them three times before it gives up.
    if not training.is_needed():
        return
    config = training.config
    gpus = gpus_per_worker(config)
    _check_resources(config, gpus, on_wait)
    keep_data_actors_here()
    # On the driver's node: a node that is removed must not take them away and end the run.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    beside = ray.remote(num_cpus=0, scheduling_strategy=here)
    progress = beside(Progress).remote()
    pace = beside(Pace).remote()
    with scratch_folder("ctray-train-") as scratch:
        trainer = TorchTrainer(
            _worker,
            train_loop_config={
                "training": training,
                "progress": progress,
                "pace": pace,
                "threads": threads_per_worker(config),
            },
            scaling_config=ScalingConfig(
                num_workers=config.train.num_workers,
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": _CPUS_PER_WORKER, **({"GPU": gpus} if gpus else {})},
            ),
            # ctray writes the checkpoint itself; Ray Train needs a folder for its own notes.
            run_config=RayRunConfig(
                name="ctray-pretrain",
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=2),
            ),
            datasets=_datasets(training, pace),
            dataset_config=data_config(),
        )
        _fit(trainer, progress, on_log, on_step)


def data_config() -> DataConfig:
    """Return the options that keep each stream whole on its worker, and its rows in order.

    Ray Train replaces the options of the stream by these (seen with Ray 2.60). Without them, the
    order was lost in one of about fifteen trainings on a busy machine, and the weights differed.
    """
    return DataConfig(datasets_to_split=[], execution_options=ExecutionOptions(preserve_order=True))


# Less than one CPU, so that readers also fit on a machine with a single CPU.
_CPUS_PER_WORKER = 0.5


def _datasets(training: EncoderTraining, pace: Any) -> dict[str, Any]:
    """Build one stream per worker when the workers start, so that a restart resumes."""
    config = training.config

    def stream_of(rank: int) -> Callable[[], Any]:
        def build() -> Any:
            step = checkpoint_step(training.checkpoint_url) or 0
            return example_stream(
                config,
                list(training.training_urls),
                training.side,
                first_round=step // steps_per_round(config.train),
                rank=rank,
                pace=pace,
            )

        return build

    return {f"rank-{rank}": stream_of(rank) for rank in range(config.train.num_workers)}


def _worker(arguments: dict[str, Any]) -> None:
    """Body of one Ray Train worker."""
    torch.set_num_threads(arguments["threads"])
    training: EncoderTraining = arguments["training"]
    config = training.config
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    trainer = Trainer(
        config,
        training.side,
        device=get_device(),
        rank=rank,
        wrap=prepare_model if world > 1 else None,
    )
    restore(trainer, training.checkpoint_url)
    is_due = Throttle()

    def log(row: Row) -> None:
        if rank == 0:
            arguments["progress"].add.remote(row)

    def checkpoint(trainer: Trainer) -> None:
        if rank == 0:
            save_checkpoint(training.checkpoint_url, trainer)

    def reach(step: int) -> None:
        if rank == 0 and is_due():
            arguments["progress"].reach.remote(step)

    first = first_round(trainer)

    def advance(index: int) -> None:
        arguments["pace"].advance.remote(rank, first + index)

    stream = ray.train.get_dataset_shard(f"rank-{rank}")
    try:
        train(
            trainer,
            rounds(stream, config, advance),
            validation=training.validation() if rank == 0 else None,
            on_log=log,
            on_step=reach,
            on_checkpoint=checkpoint,
        )
    except Exception as error:
        own = own_error(error)
        # Other workers would wait for ever for one that ends without an error.
        if world > 1 or not isinstance(own, LASTING_ERRORS):
            raise
        ray.get(arguments["progress"].fail.remote(own))


def _fit(
    trainer: TorchTrainer,
    progress: Any,
    on_log: Callable[[Row], None],
    on_step: Callable[[int], None],
) -> None:
    """Train, and hand rows to the driver as they come."""
    failure: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=fit, name="ctray-fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.5)
        rows, step = ray.get(progress.take.remote())
        for row in rows:
            on_log(row)
        if step is not None and not rows:
            on_step(step)
    lasting = ray.get(progress.failure.remote())
    if lasting is not None:
        raise lasting
    if failure:
        error = failure[0]
        if not isinstance(error, Exception):
            raise error
        raise own_error(error) or TrainingError(f"training failed: {last_line(error)}") from error


def gpus_per_worker(config: RunConfig) -> float:
    """Return the GPUs of one worker: as configured, else one if the cluster has enough."""
    wanted = config.train.num_gpus_per_worker
    if wanted is not None:
        return wanted
    return 1.0 if cluster_gpus() >= config.train.num_workers else 0.0


def threads_per_worker(config: RunConfig) -> int:
    """Return the threads that one worker computes with."""
    return training_threads(config, cluster_cpus())


def _check_resources(config: RunConfig, gpus: float, on_wait: Callable[[str], None]) -> None:
    """Raise an error that says what is missing, instead of waiting for ever."""
    cpus = _CPUS_PER_WORKER + 0.25 * config.train.num_readers
    workers = config.train.num_workers
    if autoscales():
        # One bundle for each worker and its readers; the readers may then run anywhere.
        bundle = {"CPU": cpus, "GPU": gpus}
        if wait_for_room([bundle] * workers, on_wait=on_wait):
            return
        lower = "train.num_workers or train.num_gpus_per_worker"
        raise TrainingError(no_room("training", bundle, lower, workers))
    if cluster_cpus() < workers * cpus:
        raise TrainingError(
            f"training needs {workers * cpus:g} CPUs ({workers} workers and their readers) "
            f"and Ray has {cluster_cpus():g}; lower train.num_workers or train.num_readers, or "
            "raise ray.num_cpus"
        )
    needed = gpus * workers
    if cluster_gpus() < needed:
        raise TrainingError(
            f"training needs {needed:g} GPUs and Ray has {cluster_gpus():g}; lower "
            "train.num_gpus_per_worker, or add nodes with a GPU"
        )
