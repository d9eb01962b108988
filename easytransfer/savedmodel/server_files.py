"""The configuration files of a server beside the models, as they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from .failure import CheckFailed
from .messages import new_message

FILES = {
    "models.config": "ModelServerConfig",
    "batching.config": "BatchingParameters",
    "monitoring.config": "MonitoringConfig",
}


def parse_file(path: Path, kind: str | None = None) -> Any:
    """Returns the message in a text protobuf; the official message where `tensorflow-serving-api` has one.

    Args:
        path: The file.
        kind: Which of `FILES` it is, if its name does not say so.

    Raises:
        CheckFailed: The text does not parse.
    """
    kind = kind or path.name
    message = _official(kind) or new_message(FILES[kind])
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except (OSError, ValueError, text_format.ParseError) as error:
        raise CheckFailed(f"{path.name} does not parse: {error}") from error


def _official(file: str) -> Any:
    if file != "models.config":
        return None
    try:
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError:
        return None
    return model_server_config_pb2.ModelServerConfig()
