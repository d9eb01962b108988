"""What the workers of `test_toy_applications.py` run: `toy_workers.py PACKAGE FOLDER TOY...`; a run folder for each."""

import importlib
import sys
from pathlib import Path

sys.path[:0] = [sys.argv[1], str(Path(__file__).parents[1])]
from test_toy_applications import arguments, config_of  # noqa: E402
from training import without_export  # noqa: E402

from easytransfer.config.job import DistributionConfig  # noqa: E402
from easytransfer.distributed.strategy import open_workers  # noqa: E402

WORKERS = 2


def main() -> None:
    """Trains the toys one after the other in one job: a process connects to the others once."""
    package, folder = map(Path, sys.argv[1:3])
    workers = open_workers(DistributionConfig(worker_count=WORKERS))
    module = importlib.import_module("appzoo.jobs.train")
    assert workers.size == WORKERS
    module.open_workers = lambda distribution: workers
    with without_export():
        for toy in sys.argv[3:]:
            module.train(config_of("train", arguments(package, toy, folder / toy, batch=16 // WORKERS)))


if __name__ == "__main__":
    main()
