#!/bin/sh
# Compares every locked package with the advisory database of PyPI: sh scripts/audit.sh [pip-audit arguments]
# Needs the network, and a Python with venv; pip-audit is installed into an environment that is deleted again.
# Exit code 1: an advisory applies (sh scripts/lock.sh --upgrade-package NAME, run the tests, commit the lock), or a
# package could not be looked up (--strict), which is no good news either. Exit code 3: the database cannot be reached,
# nothing was compared.
set -eu
cd "$(dirname "$0")/.."
# Mirrors of PyPI often lack the pages of single releases, which hold the advisories; pip-audit would then report each
# package as unknown.
"${PYTHON:-python3}" - requirements/run.txt <<'PYTHON'
import re
import sys
import urllib.request

name, version = re.search(r"^([\w.-]+)==([\w.]+)", open(sys.argv[1]).read(), re.MULTILINE).groups()
address = f"https://pypi.org/pypi/{name}/{version}/json"
try:
    urllib.request.urlopen(address, timeout=30).close()
except OSError as error:
    print(f"audit: nothing was compared: the advisory database cannot be reached: {address}: {error}; "
          "run this where pypi.org answers, not a mirror of its files", file=sys.stderr)  # fmt: skip
    sys.exit(3)
PYTHON
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
