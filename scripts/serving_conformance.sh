#!/bin/sh
# The protocol tests against a TensorFlow Serving instance, beside our own server.
#   sh scripts/serving_conformance.sh FOLDER     writes the models the instance must serve, and says how to start it
#   TFS_REST_URL=http://HOST:8501 TFS_GRPC_ADDR=HOST:8500 sh scripts/serving_conformance.sh
set -eu
cd "$(dirname "$0")/.."
tests=tests/easytransfer/serving
if [ $# -eq 1 ]; then
    python tests/toy_models.py "$1"
    echo "docker run -p 8500:8500 -p 8501:8501 -v $1:/models tensorflow/serving:2.20.0 \\"
    echo "    --model_config_file=/models/models.config --allow_version_labels_for_unavailable_models=true"
    exit
fi
: "${TFS_REST_URL:?names no instance}" "${TFS_GRPC_ADDR:?names no instance}"
exec python -m pytest -q $tests/test_rest_conformance.py $tests/test_grpc_conformance.py
