#!/bin/sh
# Writes requirements/run.txt, test.txt and gpu.txt from setup.py and models.txt: sh scripts/lock.sh [--upgrade]
# Needs uv and setuptools (pip install uv "setuptools<81"). Without --upgrade, versions already in the files are kept.
# run.txt holds everything the program needs, test.txt what the tests add; every package with the hashes of all its
# wheels, for Python 3.11 and newer on every platform, so they are installed with --no-deps. Only wheels are admitted: installing needs
# no compiler and runs no foreign setup.py.
set -eu
cd "$(dirname "$0")/.."

declared() { # the requirements of setup.py and of the extras named
    python3 - "$@" <<'PYTHON'
import sys
import setuptools
from distutils.core import run_setup

setup = run_setup("setup.py", stop_after="init")
print(*setup.install_requires, sep="\n")
for key, lines in setup.extras_require.items():
    extra, _, marker = key.partition(":")  # setuptools moves what holds on some platforms alone into keys of its own
    if extra in sys.argv[1:]:
        print(*(f"{line} ; {marker}" if marker else line for line in lines), sep="\n")
PYTHON
}

compile() { # output file; further requirements come on stdin, options after the file
    output=$1
    shift
    uv pip compile - "$@" --override requirements/excluded.txt --python-version 3.11 --universal \
        --only-binary :all: --generate-hashes --no-annotate --quiet --custom-compile-command "sh scripts/lock.sh" \
        --output-file "$output" >/dev/null
}

{ declared serving plot parquet hub litert; cat requirements/models.txt; } | compile requirements/run.txt "$@"

# What torch imports is named here because torch itself is not locked (peer.txt).
locked=$(sed -n 's/^\([a-z0-9][a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/run.txt)
# shellcheck disable=SC2086  # one option a word
{ declared serving plot parquet hub litert tune mlflow wandb faiss docs test; cat requirements/models.txt; printf 'sympy\nnetworkx\njinja2\n'; } |
    compile requirements/test.txt --constraint requirements/run.txt $locked "$@"

# What docker/train.gpu.Dockerfile adds: NVIDIA's libraries in the releases that TensorFlow was built with.
# shellcheck disable=SC2086
sed -n 's/^tensorflow==\([^ ]*\).*/tensorflow[and-cuda]==\1/p' requirements/run.txt |
    compile requirements/gpu.txt --constraint requirements/run.txt $locked "$@"
