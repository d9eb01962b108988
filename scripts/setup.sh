#!/bin/sh
# Makes the environment .venv from the lock files and installs EasyTransfer into it: sh scripts/setup.sh [run|test]
# Safe to repeat: an environment that is up to date is left alone. EZ_VENV names another folder, PYTHON another Python.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-run}
venv=${EZ_VENV:-.venv}
python=${PYTHON:-python3.11}

case $kind in
run) locks="requirements/run.txt" ;;
test) locks="requirements/run.txt requirements/test.txt requirements/peer.txt" ;;
*) echo "unknown kind of environment '$kind'; accepted: run, test" >&2 && exit 2 ;;
esac

# What an environment was made from is noted in it; the editable install follows the source by itself.
# shellcheck disable=SC2086  # one file a word
wanted=$(cat setup.py $locks | cksum)
if [ "$(cat "$venv/made-for-$kind" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
if [ ! -x "$venv/bin/python" ]; then
    command -v "$python" >/dev/null || { echo "$python not found; set PYTHON to a Python 3.11" >&2 && exit 2; }
    echo "creating $venv with $("$python" --version)" >&2
    "$python" -m venv "$venv"
fi
install() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps "$@"
}
echo "installing the locked packages; the first time this takes some minutes" >&2
install --require-hashes --only-binary :all: --requirement requirements/run.txt
if [ "$kind" = test ]; then
    install --require-hashes --only-binary :all: --requirement requirements/test.txt
    install --requirement requirements/peer.txt || echo "no PyTorch here: tests against it will be skipped" >&2
fi
# The distribution was once named like the import package, as another project on the package index is.
"$venv/bin/python" -m pip uninstall -qq --disable-pip-version-check --yes easytransfer
install --no-build-isolation --editable .
echo "$wanted" >"$venv/made-for-$kind"
if [ "$kind" = test ]; then
    cat setup.py requirements/run.txt | cksum >"$venv/made-for-run"
fi
