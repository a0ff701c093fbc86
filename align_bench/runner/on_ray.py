"""Workers on a Ray cluster, as actors that keep their models: one that runs already, or one that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align_bench.errors import ModelError, PluginError, StoreError
from align_bench.runner.worker import Done, Lost, Message, Ready, Setup, Task, Worker
from align_bench.store.files import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Mapping

HEARS_FOR = 0.1  # seconds between two looks at what workers have said, as long as none has ended a stage
STORE_BYTES = (
    100_000_000  # of a cluster that is started here; what is made goes through the store of runs, not through Ray
)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a worker asks the cluster for.

    Attributes:
        cpus, gpus: how many.
        memory: bytes of the node's memory; 0 not to ask for any.
    """

    cpus: int
    gpus: int
    memory: int

    def workers_on(self, node: Mapping[str, float]) -> int:
        """How many workers a node with these resources has room for."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return min(int(node.get(name, 0.0) // amount) for name, amount in asked.items() if amount)


class RayWorkers:
    """A `crew.Transport` of Ray actors.

    Ctrl-C and SIGTERM wait until Ray has returned, for it may swallow what a handler raises.

    Attributes:
        most: how many there may be at once.
        nodes: how many nodes the cluster has.
    """

    def __init__(self, most: int | None, setup: Setup, resources: Resources, address: str | None) -> None:
        """Connect to the cluster.

        Args:
            most: how many workers there may be at once; as many as the cluster has room for when None.
            setup: what they are for.
            resources: what each of them asks for.
            address: of a cluster that runs, or `auto`; None to start one here.

        Raises:
            PluginError: Ray is not installed.
            ModelError: the cluster cannot be reached, or has no room for a worker.
        """
        self._ray = _ray()
        self._setup = setup
        self._actors: dict[int, Any] = {}
        self._waiting: dict[Any, int] = {}
        self._hired = 0
        with uninterrupted():
            self._connected = not self._ray.is_initialized()
            if self._connected:
                _connect(self._ray, address)
            self._mailbox = _mailbox(self._ray)
            asked = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "memory": resources.memory or None}
            self._worker = self._ray.remote(_Worker).options(**asked, max_restarts=0, max_task_retries=0)
            rooms = [resources.workers_on(node["Resources"]) for node in self._ray.nodes() if node["Alive"]]
        self.nodes, self.most = len(rooms), most or sum(rooms)
        if not self.most:
            self.close()
            raise ModelError(
                f"no node of the Ray cluster has room for a worker, which asks for {resources.cpus} CPUs, "
                f"{resources.gpus} GPUs and {resources.memory / 1e9:,.1f} GB",
                fix="lower OMP_NUM_THREADS or train.micro_batch_tokens; where the cluster grows by itself, give --jobs",
            )

    def hire(self) -> int:
        """Start an actor; the cluster places it as soon as it has room."""
        self._hired += 1
        with uninterrupted():
            actor = self._worker.remote(self._setup, self._hired, self._mailbox)
            self._actors[self._hired] = actor
            self._waiting[actor.ready.remote()] = self._hired
        return self._hired

    def give(self, worker: int, task: Task) -> None:
        """Send a task."""
        with uninterrupted():
            self._waiting[self._actors[worker].make.remote(task)] = worker

    def hear(self) -> Iterable[tuple[int, Message]]:
        """What workers have said, and which have ended a stage or are gone."""
        with uninterrupted():
            ended, _ = self._ray.wait(list(self._waiting), timeout=HEARS_FOR)
            said: list[tuple[int, Message]] = self._ray.get(self._mailbox.take.remote())  # all, before a stage ended
            return [*said, *((self._waiting[one], self._found(one)) for one in ended)]

    def _found(self, ended: Any) -> Message:
        """What a worker has come to, or why it is gone."""
        worker = self._waiting.pop(ended)
        try:
            found: Message = self._ray.get(ended)
        except self._ray.exceptions.RayError as error:
            self._ray.kill(self._actors.pop(worker))
            return Lost(" ".join(str(error).split()))
        return found

    def close(self) -> None:
        """Stop all workers, and the cluster if it was started here."""
        with uninterrupted():
            for actor in (*self._actors.values(), self._mailbox):
                self._ray.kill(actor)
            self._actors.clear()
            if self._connected:
                self._ray.shutdown()


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to Ray's makers
    try:
        import ray
    except ImportError:
        raise PluginError("ray is not installed", fix="pip install 'align-bench[ray]'") from None
    return ray


def _connect(ray: Any, address: str | None) -> None:
    here = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address is None else {}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise ModelError(
            f"no Ray cluster can be used at {address or 'this machine'}: {error}",
            fix="give the address of a cluster that runs, HOST:PORT, or start one here by leaving --ray-address out",
        ) from error


def _mailbox(ray: Any) -> Any:
    """An actor on this very node, so that it is lost with this process and not before."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()


class _Mailbox:
    """Holds what workers say until it is taken."""

    def __init__(self) -> None:
        self._said: list[tuple[int, Message]] = []

    def put(self, worker: int, message: Message) -> None:
        self._said.append((worker, message))

    def take(self) -> list[tuple[int, Message]]:
        said, self._said = self._said, []
        return said


class _Worker:
    """A worker's process."""

    def __init__(self, setup: Setup, number: int, mailbox: Any) -> None:
        self._number = number
        self._mailbox = mailbox
        for folder in filter(None, (setup.folder, setup.runs)):
            if not folder.is_dir():
                raise StoreError(f"{folder} is not there on every node", fix="work in a folder that all nodes share")
        if setup.folder is not None:
            os.chdir(setup.folder)
        self._inner = Worker(setup, self._send)

    def ready(self) -> Ready:
        """Whether it has started."""
        return Ready()

    def make(self, task: Task) -> Done:
        """Make a stage; all that it says is in the mailbox before it ends."""
        done = self._inner.make(task)
        if (last := self._last) is not None:
            _ray().get(last)
        return done

    _last: Any = None

    def _send(self, message: Message) -> None:
        self._last = self._mailbox.put.remote(self._number, message)
