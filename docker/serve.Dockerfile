# TensorFlow Serving as it is published, for the folder that `export` writes: it runs as a plain user, reads the
# configuration files beside the models and knows when it is healthy.
#   docker build -f docker/serve.Dockerfile -t easytransfer-serving:2.20.0 .
#   docker run --rm --read-only --tmpfs /tmp -p 127.0.0.1:8501:8501 -v "$PWD/models:/models:ro" easytransfer-serving:2.20.0
# Give the base by digest to fix it: --build-arg BASE=tensorflow/serving:2.20.0@sha256:...
ARG BASE=tensorflow/serving:2.20.0

FROM ${BASE}
COPY docker/serve_health.sh /usr/local/bin/serve_health.sh
LABEL org.opencontainers.image.title="EasyTransfer serving" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV TF_CPP_MIN_LOG_LEVEL=1
EXPOSE 8500 8501
# The server opens its ports when the models are loaded and warm. A large one takes minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 CMD ["bash", "/usr/local/bin/serve_health.sh"]
USER 10001:10001
# Further flags may follow the image's name.
ENTRYPOINT ["tensorflow_model_server", \
    "--port=8500", \
    "--rest_api_port=8501", \
    "--model_config_file=/models/models.config", \
    "--model_config_file_poll_wait_seconds=30", \
    "--enable_batching=true", \
    "--batching_parameters_file=/models/batching.config", \
    "--monitoring_config_file=/models/monitoring.config", \
    "--enable_grpc_healthcheck_service=true"]
