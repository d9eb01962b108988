#!/bin/sh
# Compares every locked package with the advisory database of PyPI: sh scripts/audit.sh [pip-audit arguments]
# Needs the network, and a Python with venv; pip-audit is installed into an environment that is deleted again.
# Exit code 1: an advisory applies (sh scripts/lock.sh --upgrade-package NAME, run the tests, commit the lock), or a
# package could not be looked up (--strict), which is no good news either.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -qq --disable-pip-version-check "pip-audit>=2.9,<3"
status=0
for lock in requirements/run.txt requirements/test.txt requirements/gpu.txt requirements/horovod.txt; do
    echo "$lock" >&2
    # The locks are complete and hashed, so nothing has to be resolved or downloaded.
    "$work/venv/bin/pip-audit" --strict --require-hashes --disable-pip --requirement "$lock" "$@" || status=1
done
exit "$status"
