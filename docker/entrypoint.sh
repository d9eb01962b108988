#!/bin/sh
# Entry point of the image: no arguments = help, a verb or flags = easy_transfer_app, `serve-check DIR` = validate an
# export, anything else is run as given.
set -eu

# Threads follow the container's CPU limit, which TensorFlow does not read by itself.
if [ -z "${OMP_NUM_THREADS:-}" ] && [ -r /sys/fs/cgroup/cpu.max ]; then
    read -r quota period </sys/fs/cgroup/cpu.max
    if [ "$quota" != max ]; then
        OMP_NUM_THREADS=$(((quota + period - 1) / period))
        export OMP_NUM_THREADS TF_NUM_INTRAOP_THREADS="$OMP_NUM_THREADS"
    fi
fi

case ${1:-} in
"") exec easy_transfer_app --help ;;
serve-check)
    shift
    exec easy_transfer_app export validate "$@"
    ;;
-* | train | tune | experiment | evaluate | predict | search | export | preprocess | serve | inspect | compare | apps | zoo | config | check | profile | examples | new-app)
    exec easy_transfer_app "$@"
    ;;
*) exec "$@" ;;
esac
