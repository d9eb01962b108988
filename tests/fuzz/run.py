"""Runs fuzz targets for as many cases as wanted and prints a table of what was found.

    python tests/fuzz/run.py --target all --cases 100000
    python tests/fuzz/run.py --target config --cases 100000 --engine atheris

Every target runs in a process of its own: one that crashes is a finding and not the end. The input of the case that was
running is in the file named beside the finding. Findings are counted by place, not shrunk;
`EZ_FUZZ_CASES=100000 python -m pytest tests/fuzz/test_fuzz.py -k config` shrinks the first one.

Hypothesis draws cases from the target's description, and each is mutated. atheris lets libFuzzer choose, which keeps
what reaches new lines of ours; it has wheels for Linux on x86-64 with Python 3.11 and newer only.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

# Hypothesis remembers the cases of one call, so a long run is made of many.
CASES_AT_A_TIME = 2000
# Mutants of every case that is drawn, unless asked for others, and the share of them that are mutants of a mutant.
MUTANTS, DEEPER = 60, 0.5
OURS = ["easytransfer", "modelzoo", "appzoo"]
_NO_LIMITS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def place(error: BaseException) -> str:
    """Returns what was raised and the last line of ours it passed."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(REPOSITORY)]
    last = frames[-1]
    return f"{type(error).__name__} at {Path(last.filename).relative_to(REPOSITORY)}:{last.lineno}"


class Run:
    """One target in this process.

    Args:
        name: The target.
        scratch: Folder for its files.
        mutants: Of every case that Hypothesis draws; few where drawing is no slower than running.
    """

    def __init__(self, name: str, scratch: Path, mutants: int = MUTANTS) -> None:
        from fuzz_case import SECONDS, check
        from fuzz_targets import TARGETS

        self.target, self.scratch, self.mutants = TARGETS[name], scratch, mutants
        self.check, self.patience = check, SECONDS
        self.last = os.open(scratch / f"{name}.txt", os.O_WRONLY | os.O_CREAT)
        self.watched = -float("inf")
        self.cases = 0
        self.found: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def one(self, value: Any) -> None:
        """Runs a case and counts what it raises."""
        self.cases += 1
        os.ftruncate(self.last, os.pwrite(self.last, ascii(value).encode(), 0))
        self.watch()
        try:
            self.check(self.target, value, self.scratch)
        except Exception as error:
            self.found[place(error)] += 1
            self.examples.setdefault(place(error), f"{error!s:.200} for {ascii(value):.500}")

    def watch(self) -> None:
        """Ends the process when a case hangs outside of Python; to be called often."""
        now = time.monotonic()
        if now > self.watched + self.patience:
            # Not for each case: exchanging the watching thread takes longer than most cases.
            faulthandler.dump_traceback_later(3 * self.patience, exit=True)
            self.watched = now

    def report(self, seconds: float) -> None:
        """Prints what happened as a line of JSON."""
        faulthandler.cancel_dump_traceback_later()
        found = {"cases": self.cases, "seconds": round(seconds, 1), "found": self.found, "of": self.examples}
        print(json.dumps(found), flush=True)

    def hypothesis(self, cases: int, first_seed: int) -> None:
        """Runs cases that Hypothesis draws, and mutated copies of each."""
        from fuzz_inputs import mutated

        for number in itertools.count(first_seed):
            if self.cases >= cases:
                return
            self.random = Random(number)
            size = min(CASES_AT_A_TIME, -(-(cases - self.cases) // (self.mutants + 1)))

            @seed(number)
            @settings(max_examples=size, phases=[Phase.generate], **_NO_LIMITS)
            @given(self.target.inputs)
            def batch(value: object) -> None:
                self.one(value)
                # Drawing takes longer than most cases; mutants cost nothing.
                mutant = value
                for _ in range(min(self.mutants, cases - self.cases)):
                    mutant = mutated(mutant if self.random.random() < DEEPER else value, self.random)
                    self.one(mutant)

            batch()

    def atheris(self, cases: int, first_seed: int) -> None:
        """Runs cases that libFuzzer mutates by coverage; ends the process, since libFuzzer does not return."""
        import atheris

        begin = time.monotonic()

        def test(value: Any) -> None:
            self.one(value)
            if self.cases == cases:
                self.report(time.monotonic() - begin)
                os._exit(0)

        fuzz = settings(**_NO_LIMITS)(given(self.target.inputs)(test)).hypothesis.fuzz_one_input
        atheris.Setup([sys.argv[0], f"-seed={first_seed}", "-len_control=0", "-max_len=8192"], fuzz)
        atheris.Fuzz()


def instrumented(engine: str) -> contextlib.AbstractContextManager[Any]:
    """Returns the block in which modules are to be imported for an engine."""
    if engine != "atheris":
        return contextlib.nullcontext()
    import atheris

    return atheris.instrument_imports(include=OURS)


def in_this_process(name: str, options: argparse.Namespace) -> None:
    """Runs one target and prints its line."""
    faulthandler.enable()
    with instrumented(options.engine):
        run = Run(name, options.scratch, options.mutants)
    begin = time.monotonic()
    getattr(run, options.engine)(options.cases, options.seed)
    run.report(time.monotonic() - begin)


def in_processes(names: list[str], arguments: list[str], scratch: Path) -> int:
    """Runs each target in a process of its own, prints the table, and returns the number of findings."""
    print(f"{'target':<20}{'cases':>9}{'seconds':>9}  findings", flush=True)
    total = 0
    for name in names:
        command = [sys.executable, __file__, "--inside", "--target", name, *arguments, "--scratch", str(scratch)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            total += 1
            text = f"ended with {done.returncode}, last input in {scratch / name}.txt"
            print(f"{name:<20}{'?':>9}{'?':>9}  {text}\n{done.stderr[:1000]}\n...\n{done.stderr[-1000:]}", flush=True)
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        total += len(result["found"])
        print(f"{name:<20}{result['cases']:>9}{result['seconds']:>9}  {len(result['found'])}", flush=True)
        for where, count in result["found"].items():
            print(f"    {count} x {where}: {result['of'][where]}", flush=True)
    return total


def main() -> int:
    """Returns 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="all", help="all, or names of targets with commas between them")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=MUTANTS, help="of every case that Hypothesis draws")
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        in_this_process(options.target, options)
        return 0
    from fuzz_targets import TARGETS

    names = list(TARGETS) if options.target == "all" else options.target.split(",")
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"unknown target {', '.join(unknown)}; accepted: all, {', '.join(TARGETS)}")
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    arguments = ["--cases", str(options.cases), "--engine", options.engine, "--seed", str(options.seed)]
    arguments += ["--mutants", str(options.mutants)]
    return 1 if in_processes(names, arguments, scratch) else 0


if __name__ == "__main__":
    sys.exit(main())
