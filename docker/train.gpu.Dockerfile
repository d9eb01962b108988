# The same command line for NVIDIA GPUs: the CPU image and NVIDIA's libraries, which TensorFlow finds in its own
# environment. Needs the driver and NVIDIA's container toolkit on the host, nothing else.
#   docker build -f docker/train.Dockerfile -t easytransfer:2.0.0 .
#   docker build -f docker/train.gpu.Dockerfile -t easytransfer:2.0.0-gpu .
#   docker run --rm --gpus all --read-only --tmpfs /tmp -v "$PWD:/data" easytransfer:2.0.0-gpu train --config job.yaml
#
# The GPUs of one machine share a batch with --distributionStrategy mirrored, which exchanges through NCCL. Workers on
# several machines exchange through Horovod, which is built for CPUs: gradients are copied to the host first.
ARG IMAGE=easytransfer:2.0.0

FROM ${IMAGE}
USER 0:0
WORKDIR /tmp/gpu
COPY requirements/gpu.txt gpu.txt
# The packages are the ones `tensorflow[and-cuda]` names, by hash; those of run.txt are there already.
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --requirement gpu.txt \
    && rm gpu.txt
WORKDIR /data
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    TF_FORCE_GPU_ALLOW_GROWTH=true
USER 10001:10001
