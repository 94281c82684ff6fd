"""What runs the work of a run: plain processes of this machine, or a Ray session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Protocol

from ctray.config import PoolConfig, RayConfig, RunConfig
from ctray.core.errors import RayStartError
from ctray.executors.local.executor import LocalExecutor
from ctray.executors.progress import Row
from ctray.learn.pretext.work import EncoderTraining
from ctray.learn.self_training.work import Record
from ctray.records.events import OnEvent, nobody
from ctray.records.run_folder import RunFolder


class Executor(Protocol):
    """Runs the three kinds of work of a run; what is found does not depend on which one does."""

    @property
    def kind(self) -> Literal["local", "ray"]:
        """Where work runs."""

    def run_pool(
        self,
        worker: type,
        arguments: tuple[Any, ...],
        items: Iterable[Any],
        config: PoolConfig,
        on_wait: Callable[[str], None] = nobody,
    ) -> Iterator[Any]:
        """Results of `worker` over `items`, in the order in which they are done.

        An item whose process dies twice gives no result; the others go on. A `CtrayError` that the
        worker returns or raises ends the run.
        """

    def pool_threads(self, config: PoolConfig) -> int:
        """Threads that one process of the pool computes with."""

    def train_encoder(
        self,
        training: EncoderTraining,
        on_log: Callable[[Row], None],
        on_step: Callable[[int], None],
        on_wait: Callable[[str], None] = nobody,
    ) -> None:
        """Train to the configured last step, from the checkpoint where there is one.

        `on_log` is called with every row of metrics, `on_step` now and then with the number of
        steps that are done.
        """

    def train_slabs(
        self, run: RunFolder, config: RunConfig, records: list[Record], on_event: OnEvent
    ) -> None:
        """Train the slab network from the boxes in `records` and save it."""


@contextmanager
def executor_session(
    config: RayConfig, on_note: Callable[[str], None] = nobody
) -> Iterator[Executor]:
    """Executor for the block: plain processes where the settings say so, else a Ray session.

    Where Ray does not start on this machine, the block gets plain processes.

    Parameters
    ----------
    config
        Session to start or to connect to.
    on_note
        Called with a line about what is waited for, and about what was done instead.

    Raises
    ------
    CtrayError
        If no cluster answers at the address that is configured.
    """
    if config.local:
        yield LocalExecutor(config)
        return
    on_note("loading Ray")
    from ctray.executors.ray.executor import RayExecutor
    from ctray.executors.ray.session import ray_session

    with ExitStack() as stack:
        executor: Executor
        try:
            stack.enter_context(ray_session(config, on_note))
            executor = RayExecutor()
        except RayStartError as error:
            on_note(f"{error}. Continuing without Ray; --ray-timeout waits longer.")
            executor = LocalExecutor(config)
        yield executor


def running_executor() -> Executor:
    """Executor of the Ray session that is running."""
    from ctray.executors.ray.executor import RayExecutor

    return RayExecutor()
