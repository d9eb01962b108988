"""Stages of a pipeline, under the name that scripts import: `easytransfer.compat.pipeline`."""

from easytransfer.compat.pipeline import (
    OrderedQueue as OrderedQueue,
)
from easytransfer.compat.pipeline import (
    Process as Process,
)
from easytransfer.compat.pipeline import (
    ProcessExecutor as ProcessExecutor,
)
