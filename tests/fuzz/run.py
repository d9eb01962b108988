"""Runs fuzz targets for as many cases as wanted and prints a table of what was found.

    python tests/fuzz/run.py --target all --cases 100000
    python tests/fuzz/run.py --target config --cases 100000 --engine atheris

Every target runs in a process of its own: one that crashes is a finding and not the end. The input of the case that was
running is in the file named beside the finding. With Hypothesis, findings are counted by place, not shrunk;
`EZ_FUZZ_CASES=100000 python -m pytest tests/fuzz/test_fuzz.py -k config` shrinks the first one.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from fuzz_case import SECONDS, check  # noqa: E402
from fuzz_inputs import mutated  # noqa: E402
from fuzz_targets import TARGETS  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402

# Hypothesis remembers the cases of one call, so a long run is made of many.
CASES_AT_A_TIME = 2000
# Mutated copies of every case that is drawn.
MUTANTS = 30
_NO_LIMITS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
REPOSITORY = Path(__file__).resolve().parents[2]


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
    """

    def __init__(self, name: str, scratch: Path) -> None:
        self.target = TARGETS[name]
        self.scratch = scratch
        self.last = scratch / f"{name}.txt"
        self.cases = 0
        self.found: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def one(self, value: object) -> None:
        """Runs a case and counts what it raises."""
        self.cases += 1
        self.last.write_text(ascii(value))
        faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # for what hangs outside of Python
        try:
            check(self.target, value, self.scratch)
        except Exception as error:
            self.found[place(error)] += 1
            self.examples.setdefault(place(error), f"{error!s:.200} for {ascii(value):.500}")
        finally:
            faulthandler.cancel_dump_traceback_later()

    def hypothesis(self, cases: int, first_seed: int) -> None:
        """Runs cases that Hypothesis draws, and mutated copies of each."""
        for number in itertools.count(first_seed):
            if self.cases >= cases:
                return
            self.random = Random(number)
            size = min(CASES_AT_A_TIME, -(-(cases - self.cases) // (MUTANTS + 1)))

            @seed(number)
            @settings(max_examples=size, phases=[Phase.generate], **_NO_LIMITS)
            @given(self.target.inputs)
            def batch(value: object) -> None:
                self.one(value)
                # Drawing takes longer than most cases; mutants cost nothing.
                for _ in range(MUTANTS):
                    if self.cases < cases:
                        self.one(mutated(value, self.random))

            batch()

    def atheris(self, cases: int, first_seed: int) -> None:
        """Runs cases that libFuzzer mutates by coverage; it ends the process itself."""
        import atheris

        def test(value: object) -> None:
            check(self.target, value, self.scratch)

        fuzz = settings(**_NO_LIMITS)(given(self.target.inputs)(test)).hypothesis.fuzz_one_input
        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-runs={cases}", f"-seed={first_seed}", f"-timeout={SECONDS}"], fuzz)
        atheris.Fuzz()


def in_this_process(name: str, engine: str, cases: int, first_seed: int, scratch: Path) -> None:
    """Runs one target and prints its line as JSON."""
    faulthandler.enable()
    run = Run(name, scratch)
    begin = time.monotonic()
    getattr(run, engine)(cases, first_seed)
    seconds = round(time.monotonic() - begin, 1)
    print(json.dumps({"target": name, "cases": run.cases, "seconds": seconds, "found": run.found, "of": run.examples}))


def in_processes(names: list[str], arguments: list[str], scratch: Path) -> int:
    """Runs each target in a process of its own, prints the table, and returns the number of findings."""
    print(f"{'target':<20}{'cases':>9}{'seconds':>9}  findings", flush=True)
    total = 0
    for name in names:
        command = [sys.executable, __file__, "--inside", "--target", name, *arguments, "--scratch", str(scratch)]
        done = subprocess.run(command, capture_output=True, text=True)
        line = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
        result = json.loads(line[0]) if line and line[0].startswith("{") else None
        if result is None:
            total += done.returncode != 0
            text = f"ended with {done.returncode}, last input in {scratch / name}.txt" if done.returncode else "none"
            print(f"{name:<20}{'?':>9}{'?':>9}  {text}\n{done.stderr[-2000:]}", flush=True)
            continue
        total += len(result["found"])
        print(f"{name:<20}{result['cases']:>9}{result['seconds']:>9}  {len(result['found'])}", flush=True)
        for where, count in result["found"].items():
            print(f"    {count} x {where}: {result['of'][where]}", flush=True)
    return total


def main() -> int:
    """Returns 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="all", help=f"all, or some of: {', '.join(TARGETS)}")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--engine", choices=["hypothesis", "atheris"], default="hypothesis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = list(TARGETS) if options.target == "all" else options.target.split(",")
    if unknown := sorted(set(names) - set(TARGETS)):
        parser.error(f"unknown target {', '.join(unknown)}; accepted: all, {', '.join(TARGETS)}")
    if options.inside:
        in_this_process(names[0], options.engine, options.cases, options.seed, options.scratch)
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    arguments = ["--cases", str(options.cases), "--engine", options.engine, "--seed", str(options.seed)]
    return 1 if in_processes(names, arguments, scratch) else 0


if __name__ == "__main__":
    sys.exit(main())
