"""The command `easy_transfer_app`: picks the verb, runs it, turns every failure into one message and an exit code."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import easytransfer
from appzoo.cli.text import VERBS
from easytransfer.config.paths import user_path
from easytransfer.config.schema import MODES
from easytransfer.errors import ConfigError, EasyTransferError, Interrupted, ResourceError, did_you_mean
from easytransfer.run import log
from easytransfer.run.secrets import shown_arguments, without_secrets

# Verbs that print what a function returns, each of which is imported when it is asked for.
PRINTED = {
    "search": ("searching", "search"),
    "inspect": ("inspection", "inspect"),
    "apps": ("verbs", "apps"),
    "zoo": ("zoo", "zoo"),
    "compare": ("comparison", "compare"),
    "config": ("verbs", "config"),
    "check": ("installation", "check"),
    "profile": ("profiling", "profile"),
    "examples": ("examples", "examples"),
    "new-app": ("new_app", "new_app"),
}
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MEMORY_FIX = (
    "lower --batchSize and raise --numAccumulatedBatches by the same factor, or lower --sequenceLength; "
    "--mixedPrecision=bfloat16 needs less memory"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit code; results go to stdout, everything else to stderr.

    Args:
        argv: Arguments without the program name; those of the process when None.
    """
    # The classes of settings stay until the end; searching them for garbage again and again is a tenth of a start.
    gc.set_threshold(50_000, *gc.get_threshold()[1:])
    return guarded(run, argv)


def zoo(argv: Sequence[str] | None = None) -> int:
    """Runs one command line of `ez_zoo`, which is `easy_transfer_app zoo`."""
    return guarded(lambda arguments: run(["zoo", *arguments]), argv)


def guarded(function: Callable[[list[str]], int], argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code of what it returns or raises.

    Args:
        function: The command; takes its arguments.
        argv: Arguments without the program name; those of the process when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    log.setup_logging()
    try:
        return function(arguments)
    except BrokenPipeError:
        # The reader of stdout has gone, as in `easy_transfer_app apps | head -1`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as stop:
        # argparse leaves this way after printing the help of `zoo`, `apps` or `config`.
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _fail(Interrupted("interrupted", fix="type the same command again to continue from the last checkpoint"))
    except Exception as error:
        known = expected(error)
        if known is None:
            return _unexpected(error, arguments)
        if "--debug" in arguments:
            print(without_secrets(traceback.format_exc()), file=sys.stderr)
        return _fail(known)


def run(arguments: list[str]) -> int:
    """Runs one command line; raises what goes wrong."""
    if not arguments:
        from appzoo.cli.text import MORE, OVERVIEW, verb_lines

        print("\n".join([OVERVIEW, *verb_lines(), "", MORE]), file=sys.stderr)
        return ConfigError.exit_code
    verb = None if arguments[0].startswith("-") else arguments[0]
    rest = arguments[1:] if verb else arguments
    if verb is not None and verb not in VERBS:
        return run_command(verb, rest)
    if verb is None and rest[0] in ("--version", "-V"):
        log.print_result(easytransfer.__version__)
        return 0
    if arguments[:2] == ["export", "validate"]:
        from appzoo.cli.validation import validate_export

        return validate_export(arguments[2:])
    if verb is None or verb in MODES:
        return run_job(verb, ["--help" if argument == "-h" else argument for argument in rest])
    if verb == "tune":
        from appzoo.cli.tune import tune

        return tune(rest)
    if verb == "experiment":
        from appzoo.cli.experiment import experiment

        return experiment(rest)
    if verb == "serve":
        from appzoo.cli.serving import serve

        return serve(rest)
    module, name = PRINTED[verb]
    return print_command(getattr(importlib.import_module(f"appzoo.cli.{module}"), name), rest)


def run_command(verb: str, arguments: list[str]) -> int:
    """Runs a verb that an application brings, see `appzoo.discovery.commands`."""
    from appzoo import discovery

    known = discovery.commands()
    if verb not in known:
        verbs = [*VERBS, *known]
        raise ConfigError("unknown verb", received=verb, accepted=verbs, fix=did_you_mean(verb, verbs))
    return print_command(known[verb], arguments)


def print_command(function: Callable[[list[str]], Any], arguments: list[str]) -> int:
    """Runs a verb and prints what it returns."""
    if {"-h", "--help"} & set(arguments):
        function(arguments)  # prints its help to stdout and leaves
    with log.results_only_stdout() as stdout:
        log.print_result(function(arguments), stdout)
    return 0


def run_job(verb: str | None, arguments: list[str]) -> int:
    """Reads, checks and runs one of the five modes."""
    from appzoo.cli.checks import check_job
    from appzoo.cli.reader import JobReader
    from easytransfer.config.files import dump
    from easytransfer.distributed.strategy import STARTS_WORKERS, started_again, starts_workers

    notes: list[str] = []
    try:
        reader = JobReader(verb, arguments, notes)
        if "help" in reader.options:
            log.print_result(reader.help())
            return 0
        job = reader.read()
        if started_again():
            job.config.runtime.resume, job.config.runtime.overwrite = "auto", False
        if job.dump is not None:
            return dump_config(dump(job.config, job.mode), job.dump)
        log.setup_logging(job.config.runtime.log_format)
        check_job(job)
    finally:
        for note in notes:
            log.warn(note)
    if job.mode in STARTS_WORKERS and starts_workers(job.config.distribution):
        from appzoo.cli.workers import start_workers

        return start_workers(job.config, [*([verb] if verb else []), *arguments])
    with log.results_only_stdout() as stdout:
        log.print_result(job_function(job.mode)(job.config), stdout)
    return 0


def job_function(mode: str) -> Any:
    """Returns the function of a mode. Importing it imports TensorFlow, so it comes after all checks."""
    from appzoo import jobs

    return getattr(jobs, mode)


def dump_config(values: dict[str, Any], target: str) -> int:
    """Writes a configuration as JSON to a file, or to stdout when `target` is empty."""
    from easytransfer.run.atomic import write_json

    if target:
        write_json(user_path(target), values)
        log.say(f"configuration written to {target}")
    else:
        import json

        log.print_result(json.dumps(values, indent=2, ensure_ascii=False))
    return 0


def expected(error: BaseException) -> EasyTransferError | None:
    """Returns the failure as one a user can act on, or None when nobody expected it."""
    if isinstance(error, EasyTransferError):
        return error
    names = {kind.__name__ for kind in type(error).__mro__}
    # TensorFlow's error is known by name, so that nothing here imports TensorFlow.
    if names & {"MemoryError", "ResourceExhaustedError"}:
        first_line = (str(error).strip() or "no details").split("\n")[0][:200]
        return ResourceError(f"out of memory: {first_line}", fix=_MEMORY_FIX)
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return ResourceError(f"cannot write {error.filename or 'a file'}: {error.strerror}", fix="free some space")
    return None


def _fail(error: EasyTransferError) -> int:
    _print_error(" ".join(str(error).splitlines()))
    return error.exit_code


def _print_error(text: str) -> None:
    print(log.printable("error: " + without_secrets(text)), file=sys.stderr)


def _unexpected(error: Exception, arguments: list[str]) -> int:
    """Prints the traceback and keeps it in a report file with what is needed to look into it."""
    trace = without_secrets("".join(traceback.format_exception(error)))
    tensorflow = getattr(sys.modules.get("tensorflow"), "__version__", "not imported")
    facts = [
        f"time: {time.strftime('%Y-%m-%dT%H:%M:%S%z')}",
        f"arguments: {shown_arguments(arguments)}",
        f"easytransfer {easytransfer.__version__}, python {sys.version.split()[0]}, tensorflow {tensorflow}",
    ]
    print(trace, file=sys.stderr)
    place = "no report file could be written"
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        report = folder / f"easytransfer-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        try:
            report.write_text("\n".join([*facts, "", trace]), encoding="utf-8")
        except OSError:
            continue
        place = f"report written to {report}"
        break
    _print_error(f"unexpected {type(error).__name__}: {error}; {place}")
    return EasyTransferError.exit_code
