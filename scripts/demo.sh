#!/bin/sh
# The main job on the sample in examples/: sh scripts/demo.sh
# Makes the environment, fine-tunes MiniLM, evaluates, predicts and exports. Repeating it replaces runs/quickstart.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh run
PATH="$(cd "${EZ_VENV:-.venv}" && pwd)/bin:$PATH"
sample=examples/text_classify

run() {
    printf '\n$ easy_transfer_app %s\n' "$*" >&2
    easy_transfer_app "$@"
}

run train --config $sample/config.yaml --overwrite
run evaluate --checkpointPath runs/quickstart --inputTable $sample/dev.tsv
run predict --checkpointPath runs/quickstart --inputTable $sample/test.tsv --inputSchema text:str:1 \
    --outputTable runs/quickstart/predictions.tsv --outputSchema predictions,probabilities --appendCols text --overwrite
run export --checkpointPath runs/quickstart --exportDirBase runs/quickstart/serving
head -n 3 runs/quickstart/predictions.tsv
