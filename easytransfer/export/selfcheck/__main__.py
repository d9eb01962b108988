"""Checks one export and prints the report as JSON: `selfcheck FOLDER staged|published`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .checks import SelfCheck

# Their absence shows that the export stands on TensorFlow alone.
TRAINING_PACKAGES = ("easytransfer", "appzoo", "modelzoo", "tf_keras", "official", "transformers", "horovod")


def main() -> None:
    """Prints the report of all checks."""
    report = SelfCheck(Path(sys.argv[1]), staged=sys.argv[2] == "staged").run()
    present = [name for name in TRAINING_PACKAGES if name in sys.modules]
    detail = f"imported: {', '.join(present)}" if present else "TensorFlow only"
    report["checks"].append({"name": "process", "ok": not present, "detail": detail, "seconds": 0.0})
    report["ok"] = report["ok"] and not present
    print(json.dumps(report))


if __name__ == "__main__":
    main()
