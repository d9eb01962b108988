"""Configuration files of a TensorFlow Serving instance that serves every model under one folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import text_format

from easytransfer.errors import ConfigError
from easytransfer.export.selfcheck.server_files import check_server_files
from easytransfer.savedmodel.failure import CheckFailed
from easytransfer.savedmodel.messages import new_message
from easytransfer.savedmodel.server_files import FILES, parse_file

BATCH_TIMEOUT_MICROS = 2000
MAX_ENQUEUED_BATCHES = 100
BATCH_THREADS = 4
_LABELS_HINT = """\
# Version labels (stable, canary) can be given only to versions the server has loaded already. Serve two versions with
# `latest { num_versions: 2 }`, wait until both are available, then add for example
#   version_labels { key: "stable" value: 1 }
"""
# The server fills with the first element of a tensor, which is a real token and not padding.
_PADDING_HINT = """\
# Padding of unequal lengths by the server stays off: it does not pad with zeros. Clients of token-id signatures pad
# their requests to one common length.
"""


def update_server_files(base: Path, name: str, *, max_batch_size: int, serving_root: str) -> None:
    """Adds the models under `base` to its configuration files; what is written there already stays as it is.

    Args:
        base: Folder with one folder per model.
        name: The model that was just published.
        max_batch_size: Largest batch the server forms; used only where `batching.config` does not exist yet.
        serving_root: Where the server sees `base`.

    Raises:
        ConfigError: An existing file is not usable.
    """
    with _locked(base), _explained(base):
        _update_models(base / "models.config", serving_root)
        for path, text in (
            (base / "batching.config", batching_text(max_batch_size)),
            (base / "monitoring.config", monitoring_text()),
        ):
            if not path.exists():
                write_atomically(path, text)
        check_server_files(base, name)


def check_existing_files(base: Path) -> None:
    """Parses the configuration files that `base` has already, before time is spent on an export.

    Raises:
        ConfigError: One of them does not parse.
    """
    with _explained(base):
        for path in (base / name for name in FILES):
            if path.exists():
                parse_file(path)


def batching_text(max_batch_size: int) -> str:
    """Returns batching parameters with sizes 1, 2, 4, ... up to `max_batch_size`."""
    sizes = [2**power for power in range(max_batch_size.bit_length()) if 2**power < max_batch_size] + [max_batch_size]
    message = new_message(
        "BatchingParameters",
        max_batch_size={"value": max_batch_size},
        batch_timeout_micros={"value": BATCH_TIMEOUT_MICROS},
        max_enqueued_batches={"value": MAX_ENQUEUED_BATCHES},
        num_batch_threads={"value": BATCH_THREADS},
        allowed_batch_sizes=sizes,
    )
    return _PADDING_HINT + text_format.MessageToString(message)


def monitoring_text() -> str:
    """Returns a monitoring configuration with the Prometheus endpoint switched on."""
    path = "/monitoring/prometheus/metrics"
    return text_format.MessageToString(
        new_message("MonitoringConfig", prometheus_config={"enable": True, "path": path})
    )


def model_folders(base: Path) -> list[str]:
    """Returns names of the folders in `base` that hold at least one published version."""
    return sorted({path.parents[1].name for path in base.glob("*/*/saved_model.pb") if path.parent.name.isdecimal()})


def write_atomically(path: Path, text: str) -> None:
    """Writes beside `path`, flushes to disk, then replaces `path`."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _update_models(path: Path, serving_root: str) -> None:
    text = path.read_text(encoding="utf-8") if path.exists() else _LABELS_HINT + "model_config_list {\n}\n"
    listed = {config.name for config in parse_file(path).model_config_list.config} if path.exists() else set()
    blocks = "".join(_model_block(name, serving_root) for name in model_folders(path.parent) if name not in listed)
    if blocks:
        # Inserted as text, so that comments and fields this version does not know are kept.
        closing = text.rfind("}")
        write_atomically(path, text[:closing] + blocks + text[closing:])


def _model_block(name: str, serving_root: str) -> str:
    config = new_message(
        "ModelConfig",
        name=name,
        base_path=f"{serving_root.rstrip('/')}/{name}",
        model_platform="tensorflow",
        model_version_policy={"latest": {"num_versions": 1}},
    )
    return f"  config {{\n{text_format.MessageToString(config, indent=4)}  }}\n"


@contextlib.contextmanager
def _explained(base: Path) -> Iterator[None]:
    try:
        yield
    except CheckFailed as failure:
        raise ConfigError(
            f"the server configuration in {base} is not usable",
            received=str(failure),
            fix="correct or remove that file",
        ) from failure


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    # Two exports at once must not lose each other's entry. The folder itself is the lock, so none is left behind.
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
