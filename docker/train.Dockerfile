# Command line for training, evaluation, prediction and export on CPU. From the top of the repository:
#   docker build -f docker/train.Dockerfile -t easytransfer .
#   docker run --rm --read-only --tmpfs /tmp -v "$PWD:/data" easytransfer train --config job.yaml
#
# Pins: Python packages by hash (requirements/run.txt). The base is named by its release tag, because no digest could be
# checked where this file was written; give one with --build-arg BASE=debian:bookworm-slim@sha256:... to fix it, which
# also fixes nothing of Debian's packages below: they follow the stable release.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
# Debian 12's own Python is 3.11, the version the lock file is made for.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data app \
    && install --directory --owner=10001 --group=10001 /data /models

FROM base AS builder
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.11 -m venv /opt/venv
WORKDIR /source
COPY requirements/run.txt requirements/run.txt
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement requirements/run.txt
COPY setup.py pyproject.toml README.md LICENSE ./
COPY easytransfer easytransfer
COPY modelzoo modelzoo
COPY appzoo appzoo
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM base AS runtime
ARG VERSION=2.0.0.dev0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="EasyTransfer" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    LANG=C.UTF-8 \
    HOME=/tmp \
    TF_CPP_MIN_LOG_LEVEL=1 \
    TF_USE_LEGACY_KERAS=1
COPY --from=builder /opt/venv /opt/venv
COPY docker/entrypoint.sh docker/health.py /usr/local/bin/
USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/models"]
# /models is the ModelZoo: pass --modelZooBasePath=/models for models that are not in a Python package.
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s --retries=3 CMD ["python", "/usr/local/bin/health.py", "/data"]
# tini passes SIGTERM on to the whole group, so that a training saves and exits with code 6.
ENTRYPOINT ["tini", "-g", "--", "sh", "/usr/local/bin/entrypoint.sh"]
