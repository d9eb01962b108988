#!/bin/sh
# Builds Horovod for CPUs (Gloo) from its source release with our patches and installs it: sh scripts/horovod.sh
# Needs what scripts/setup.sh makes, a C++17 compiler, cmake and patch; about 4 minutes of CPU the first time. The wheel
# is kept in build/horovod and used again while patches, sources, TensorFlow and Python stay the same.
# `sh scripts/horovod.sh wheel` only builds it and prints its path.
set -eu
cd "$(dirname "$0")/.."
python="${EZ_VENV:-.venv}/bin/python"
[ -x "$python" ] || sh scripts/setup.sh run
for tool in cmake patch "${CXX:-g++}"; do
    command -v "$tool" >/dev/null || {
        echo "$tool not found; install it first (Debian: apt-get install g++ cmake patch make python3-dev)" >&2
        exit 2
    }
done

pip() {
    "$python" -m pip --disable-pip-version-check "$@"
}
made_from=$(
    cat requirements/horovod.txt patches/horovod/*.patch
    "$python" -c "import sys, importlib.metadata as m; print(sys.version_info[:2], m.version('tensorflow'))"
)
cache=build/horovod/$(printf '%s' "$made_from" | sha256sum | cut -c1-16)
if ! ls "$cache"/*.whl >/dev/null 2>&1; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    pip download -qq --no-deps --no-binary :all: --no-build-isolation --require-hashes \
        --requirement requirements/horovod.txt --dest "$work"
    tar -xzf "$work"/horovod-*.tar.gz -C "$work"
    source=$(find "$work" -mindepth 1 -maxdepth 1 -type d -name 'horovod-*')
    for change in patches/horovod/*.patch; do
        patch --quiet --strip=1 --directory="$source" <"$change"
    done
    echo "building Horovod; this takes some minutes" >&2
    HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1 \
        HOROVOD_WITHOUT_MPI=1 HOROVOD_CPU_OPERATIONS=GLOO HOROVOD_CMAKE=$(command -v cmake) \
        CMAKE_POLICY_VERSION_MINIMUM=3.5 MAKEFLAGS="${MAKEFLAGS:--j2}" PATH="$(cd "$(dirname "$python")" && pwd):$PATH" \
        "$python" -m pip --disable-pip-version-check wheel -qq --no-build-isolation --no-deps --wheel-dir "$work/wheel" "$source"
    mkdir -p "$cache"
    mv "$work"/wheel/*.whl "$cache"
fi
wheel=$(ls "$cache"/*.whl)
if [ "${1:-}" = wheel ]; then
    echo "$wheel"
    exit 0
fi
pip install -qq --no-deps --force-reinstall "$wheel"
"$python" -c "
import horovod.tensorflow as hvd
assert hvd.gloo_built(), 'Horovod was built without Gloo'
print('Horovod', __import__('horovod').__version__, 'with Gloo is installed')"
