"""Which backend a job runs on, from the options of the original and of this platform. Imports no TensorFlow."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from typing import TYPE_CHECKING

from easytransfer.config.job import DistributionConfig
from easytransfer.errors import ConfigError, did_you_mean
from easytransfer.installing import HOROVOD_LINE

if TYPE_CHECKING:
    from easytransfer.distributed.workers import Workers

# The original's names, and the backend that does their work here.
STRATEGIES = {
    "none": "none",
    "mirrored": "mirrored",
    "MirroredStrategy": "mirrored",
    "horovod": "horovod",
    "CollectiveAllReduceStrategy": "horovod",
    "MultiWorkerMirroredStrategy": "horovod",
    "ExascaleStrategy": "horovod",
    "WhaleStrategy": "horovod",
}
ACCEPTED = ("none", "mirrored", "horovod")
# Modes whose workers exchange what they compute; several workers of the others write tables of their own.
STARTS_WORKERS = ("train", "evaluate")
# Environment variable of the workers of an elastic job: how often it has started again.
RESTARTS = "EASYTRANSFER_RESTARTS"


def backend(distribution: DistributionConfig) -> str:
    """Returns `none`, `mirrored` or `horovod`.

    Raises:
        ConfigError: The strategy is unknown, or several workers are asked for under one that has none.
    """
    name, workers = distribution.distribution_strategy, distribution.worker_count
    if distribution.min_workers and distribution.tensor_parallel * distribution.pipeline_stages > 1:
        raise ConfigError(
            "an elastic job cannot split the model: its number of workers changes",
            received=f"min_workers={distribution.min_workers}",
            fix="set tensor_parallel and pipeline_stages to 1, or leave min_workers out",
        )
    if distribution.min_workers > workers:
        raise ConfigError(
            "min_workers is larger than workerCount", received=distribution.min_workers, accepted=f"up to {workers}"
        )
    hosts = [host.split(":")[0] for host in distribution.worker_hosts.split(",")]
    if len(hosts) > 1 and not is_worker():
        raise ConfigError(
            f"{len(hosts)} workers are asked for by worker_hosts",
            fix=f"start them with horovodrun -np {len(hosts)} -H {','.join(f'{host}:1' for host in hosts)}",
        )
    if not name:
        return "horovod" if workers > 1 or is_worker() else "none"
    if name == "ParameterServerStrategy":
        raise ConfigError(f"{name} is not supported", accepted=ACCEPTED, fix="use horovod")
    if name not in STRATEGIES:
        raise ConfigError(
            "unknown distributionStrategy", received=name, accepted=ACCEPTED, fix=did_you_mean(name, STRATEGIES)
        )
    if workers > 1 or is_worker():
        if name == "none":
            raise ConfigError(
                f"{workers} workers are asked for under --distributionStrategy=none",
                fix="use --distributionStrategy=horovod",
            )
        return "horovod"
    return STRATEGIES[name]


def require(name: str) -> None:
    """Checks, without importing it, that the package of a backend is there.

    Raises:
        ConfigError: Horovod is missing.
    """
    if name == "horovod" and importlib.util.find_spec("horovod") is None:
        raise ConfigError("training on several workers needs Horovod", fix=HOROVOD_LINE)


def is_worker() -> bool:
    """Whether this process is one of a running job: started by us, horovodrun, or an MPI launcher."""
    return any(name in os.environ for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"))


def starts_workers(distribution: DistributionConfig) -> bool:
    """Whether this process has to start the workers of the job on its machine instead of being one."""
    return backend(distribution) == "horovod" and distribution.worker_count > 1 and not is_worker()


def started_again() -> bool:
    """Whether this worker belongs to an elastic job that goes on from its last checkpoint."""
    return int(os.environ.get(RESTARTS, 0)) > 0


def _horovod_settings(distribution: DistributionConfig) -> dict[str, str]:
    """What Horovod reads from the environment when it starts."""
    found = {}
    if distribution.fusion_mb is not None:
        found["HOROVOD_FUSION_THRESHOLD"] = str(int(distribution.fusion_mb * 2**20))
    if distribution.cycle_time_ms is not None:
        found["HOROVOD_CYCLE_TIME"] = str(distribution.cycle_time_ms)
    if distribution.timeline or distribution.autotune:
        folder = tempfile.mkdtemp(prefix="easytransfer-")
        if distribution.timeline:
            found["HOROVOD_TIMELINE"] = os.path.join(folder, "timeline.json")
        if distribution.autotune:
            found |= {"HOROVOD_AUTOTUNE": "1", "HOROVOD_AUTOTUNE_LOG": os.path.join(folder, "autotune.csv")}
    return found


def open_workers(distribution: DistributionConfig) -> Workers:
    """Returns the workers of the job; with Horovod it connects to them, before TensorFlow computes anything.

    Raises:
        ConfigError: Horovod is missing or the options do not fit.
    """
    if backend(distribution) != "horovod" or not is_worker():
        from easytransfer.distributed.workers import ONE_WORKER

        return ONE_WORKER
    for name, value in _horovod_settings(distribution).items():
        os.environ.setdefault(name, value)
    from easytransfer.distributed.horovod_workers import HorovodWorkers

    return HorovodWorkers(
        tensor_parallel=distribution.tensor_parallel,
        pipeline_stages=distribution.pipeline_stages,
        micro_batches=distribution.micro_batches,
        wire_dtype=distribution.wire_dtype,
        bucket_mb=distribution.bucket_mb,
        sparse=distribution.sparse_gradients,
    )
