"""Check 7: the configuration files beside the models parse and fit the export."""

from __future__ import annotations

from pathlib import Path

from ...savedmodel.failure import CheckFailed
from ...savedmodel.server_files import FILES, parse_file


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
