#!/bin/bash
# Health check of the serving image, which has no client for HTTP: every model that models.config names has an available
# version. EZ_MODELS and EZ_REST_PORT name another folder and port.
set -euo pipefail
config=${EZ_MODELS:-/models}/models.config
port=${EZ_REST_PORT:-8501}
names=$(sed -n 's/^ *name: *"\(.*\)"$/\1/p' "$config")
[ -n "$names" ] || {
    echo "$config names no model" >&2
    exit 1
}
for name in $names; do
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    printf 'GET /v1/models/%s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$name" >&3
    answer=$(timeout 4 cat <&3)
    exec 3<&- 3>&-
    [[ $answer == *'"AVAILABLE"'* ]] || {
        echo "$name has no available version" >&2
        exit 1
    }
done
