"""Health check of the image: fails when a training below the given folder has written nothing for too long.

The heartbeat is the run's own `metrics.jsonl`. A finished run, or none (another mode, still starting), is healthy.
EZ_HEALTH_SECONDS sets the limit; the default leaves room for a long evaluation.
"""

import os
import sys
import time
from pathlib import Path

DEFAULT_LIMIT_S = 1800


def problem(folder: Path, limit_s: float) -> str | None:
    """Returns what is wrong below `folder`, or None."""
    if not os.access(folder, os.W_OK):
        return f"{folder} is not writable"
    logs = [path for pattern in ("*", "*/*", "*/*/*") for path in folder.glob(f"{pattern}/metrics.jsonl")]
    if not logs:
        return None
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    ended = any((newest.parent / marker).exists() for marker in ("DONE", "FAILED"))
    age = time.time() - newest.stat().st_mtime
    return f"{newest} is {age:.0f} s old" if not ended and age > limit_s else None


if __name__ == "__main__":
    sys.exit(problem(Path(sys.argv[1]), float(os.environ.get("EZ_HEALTH_SECONDS", DEFAULT_LIMIT_S))))
