# Command line for training on one or several workers, evaluation, prediction, export and serving on CPU. From the top
# of the repository; the second image also has an ssh server, for workers on several hosts (deploy/k8s/mpijob.yaml):
#   docker build -f docker/train.Dockerfile -t easytransfer:2.0.0 .
#   docker build -f docker/train.Dockerfile --target ssh -t easytransfer-ssh:2.0.0 .
#   docker run --rm --read-only --tmpfs /tmp -v "$PWD:/data" easytransfer:2.0.0 train --config job.yaml
#
# Pinned: Python packages by hash (requirements/run.txt), the source of Horovod by hash (requirements/horovod.txt). The
# base is named by its release, because no digest could be checked where this file was written; give one with
# --build-arg BASE=debian:bookworm-slim@sha256:... to fix it. Debian's own packages are not pinned (DL3008): a stable
# release changes them for security only, and the archive keeps no other version than the newest.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
# Debian 12's own Python is 3.11, the version the lock file is made for.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11 tini \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 app \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data app \
    && install --directory --owner=10001 --group=10001 /data /models

FROM base AS packages
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3.11-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3.11 -m venv /opt/venv
WORKDIR /source
COPY requirements/run.txt requirements/run.txt
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement requirements/run.txt

# Minutes of compiling, in a stage of its own: built again only when the lock, Horovod or the patches change, and no
# compiler comes near the images.
FROM packages AS horovod
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends cmake g++ make patch python3.11-dev \
    && rm -rf /var/lib/apt/lists/*
COPY requirements/horovod.txt requirements/horovod.txt
COPY patches/horovod patches/horovod
COPY scripts/horovod.sh scripts/horovod.sh
RUN EZ_VENV=/opt/venv sh scripts/horovod.sh wheel && install -D --target-directory=/wheels build/horovod/*/*.whl

FROM packages AS builder
COPY --from=horovod /wheels /wheels
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && /opt/venv/bin/python -c "import horovod.tensorflow as hvd; assert hvd.gloo_built()"
COPY setup.py pyproject.toml README.md LICENSE ./
COPY easytransfer easytransfer
COPY modelzoo modelzoo
COPY appzoo appzoo
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM base AS common
ARG VERSION=2.0.0
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
COPY docker/entrypoint.sh docker/health.py docker/smoke.py /usr/local/bin/
WORKDIR /data
VOLUME ["/data", "/models"]
# /models is the ModelZoo: pass --modelZooBasePath=/models for models that are not in a Python package.
HEALTHCHECK --interval=60s --timeout=10s --start-period=120s --retries=3 CMD ["python", "/usr/local/bin/health.py", "/data"]
# tini passes SIGTERM on to the whole group, so that a training saves and exits with code 6.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tini", "-g", "--", "sh", "/usr/local/bin/entrypoint.sh"]

FROM common AS ssh
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openssh-client openssh-server \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && usermod --password '*' app \
    && install --directory --owner=10001 --group=10001 /home/app
COPY docker/sshd_config /home/app/.sshd_config
COPY docker/ssh_config /etc/ssh/ssh_config.d/easytransfer.conf
USER 10001:10001

FROM common AS runtime
USER 10001:10001
