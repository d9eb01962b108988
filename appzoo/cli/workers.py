"""Starts the workers of a job."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from easytransfer.config.job import JobConfig
from easytransfer.distributed.launch import Elastic, Hosts, launch
from easytransfer.errors import ConfigError

_PROGRAM = "from appzoo.cli.main import main; raise SystemExit(main())"


def start_workers(config: JobConfig, arguments: Sequence[str]) -> int:
    """Runs a command line on every worker of its job; returns the exit code, see `launch`."""
    options = config.distribution
    hosts = Hosts(
        options.hosts or f"localhost:{options.worker_count}",
        options.hosts_script,
        options.remote_shell,
        options.network_interface,
    )
    slots = sum(count for _, count in hosts.look())
    if not options.min_workers and slots != options.worker_count:
        raise ConfigError(
            f"the hosts have {slots} slots", received=f"--workerCount={options.worker_count}", fix="make them equal"
        )

    def position() -> bytes | None:
        pointer = Path(config.checkpoint_dir, "checkpoint.json")
        return pointer.read_bytes() if pointer.is_file() else None

    elastic = Elastic(options.min_workers, options.worker_count, position) if options.min_workers else None
    return launch([sys.executable, "-c", _PROGRAM, *arguments], hosts, elastic=elastic)
