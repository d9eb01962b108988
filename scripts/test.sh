#!/bin/sh
# Makes the environment with what the tests need and runs them: sh scripts/test.sh [--all] [pytest arguments]
# `--all` also runs what takes too long for every commit; the slowest tests are listed at the end of either.
set -eu
cd "$(dirname "$0")/.."
sh scripts/debian.sh
sh scripts/setup.sh test
sh scripts/horovod.sh || echo "no Horovod here: tests of several workers will be skipped" >&2
python="${EZ_VENV:-.venv}/bin/python"
"$python" -m ruff check .
"$python" -m ruff format --check .
if [ "${1:-}" = --all ]; then
    shift
    set -- -m "not gpu and not network" "$@"
fi
# Two at a time; what shares a costly fixture stays together, and what takes long begins early (tests/group_order.py).
exec "$python" -m pytest --numprocesses 2 --dist loadgroup --no-loadscope-reorder --durations 20 "$@"
