"""Check 7: the configuration files beside the models parse and fit the export."""

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


def check_server_files(base: Path, name: str | None) -> str:
    """Checks the files in `base` for the model `name`.

    Raises:
        CheckFailed: One does not parse or contradicts itself.
    """
    if name is None:
        return "a flat export has none"
    found = {path.name: parse_file(path) for path in (base / file for file in FILES) if path.is_file()}
    if "models.config" in found:
        listed = [config.name for config in found["models.config"].model_config_list.config]
        if listed.count(name) != 1:
            raise CheckFailed(f"models.config must list {name!r} once; it lists {listed}")
    if "batching.config" in found:
        sizes = list(found["batching.config"].allowed_batch_sizes)
        largest = found["batching.config"].max_batch_size.value
        if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != largest):
            raise CheckFailed(f"batching.config: allowed_batch_sizes {sizes} must ascend to max_batch_size {largest}")
    return ", ".join(found) or "none beside the export"


def _official(file: str) -> Any:
    if file != "models.config":
        return None
    try:
        from tensorflow_serving.config import model_server_config_pb2
    except ImportError:
        return None
    return model_server_config_pb2.ModelServerConfig()
