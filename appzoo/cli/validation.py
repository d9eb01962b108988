"""The command `export validate`: one version folder of an export, checked in a fresh process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from easytransfer.config.parser import Parser
from easytransfer.config.paths import user_path
from easytransfer.errors import ModelError
from easytransfer.run import log


def validate_export(arguments: Sequence[str]) -> int:
    """Prints the report of all checks and returns 0.

    Raises:
        ConfigError: The arguments are wrong.
        ModelError: A check fails, or there is nothing to check.
    """
    parser = Parser(prog="easy_transfer_app export validate", description="Checks an export in a fresh process.")
    parser.add_argument("folder", type=user_path, help="folder of one version, such as exports/sentiment/1")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON line")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    options = parser.read(arguments)
    from easytransfer.export.validate import failed_check, validate

    report = validate(options["folder"])
    log.print_result(report if options["json"] else "\n".join(_lines(report)))
    if failed := failed_check(report):
        raise ModelError(
            f"the export fails its check `{failed['name']}`",
            received=failed["detail"],
            fix="do not serve this folder: copy it again from where it was written, or export the run again",
        )
    return 0


def _lines(report: dict[str, Any]) -> Iterator[str]:
    for check in report["checks"]:
        yield f"{'ok  ' if check['ok'] else 'FAIL'} {check['name']:<16} {check['seconds']:7.2f} s  {check['detail']}"
    for rows, milliseconds in report.get("latency_ms", {}).items():
        yield f"latency of {rows} rows: {milliseconds} ms"
