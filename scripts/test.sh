#!/bin/sh
# Makes the environment with what the tests need and runs them: sh scripts/test.sh [pytest arguments]
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh test
python="${EZ_VENV:-.venv}/bin/python"
"$python" -m ruff check .
"$python" -m ruff format --check .
exec "$python" -m pytest "$@"
