"""Where an export may be written: models lie beside each other, never one inside another. Imports no TensorFlow."""

from __future__ import annotations

import shlex
from pathlib import Path

from easytransfer.errors import ConfigError

_PROGRAM = "saved_model.pb"


def check_base(base: Path, flat: bool = False) -> None:
    """Checks that versions written below `base` are found by a server there.

    Args:
        base: The folder of all models; with `flat` the folder of the versions of one.
        flat: Whether versions are written right into `base`.

    Raises:
        ConfigError: `base` is a version, or a model where models are written, or the other way round.
    """
    base = base.absolute()
    version = next((folder for folder in (base, *base.parents) if (folder / _PROGRAM).is_file()), None)
    if version is not None:
        raise ConfigError(
            f"{base} is {'' if version == base else 'inside '}an exported version",
            fix=f"give the folder of all models, such as {version.parents[1]}",
        )
    versions = [path.parent.name for path in base.glob(f"[0-9]*/{_PROGRAM}") if path.parent.name.isdecimal()]
    if versions and not flat:
        raise ConfigError(
            f"{base} is an exported model, with version {max(versions, key=int)}, and no folder of models",
            fix=f"use --exportDirBase={shlex.quote(str(base.parent))}, or --exportFlat for its next version",
        )
    models = [path.parents[1].name for path in base.glob(f"*/[0-9]*/{_PROGRAM}") if path.parent.name.isdecimal()]
    if flat and not versions and models:
        raise ConfigError(
            f"{base} is a folder of models: versions in it would hide {min(models)} from a server",
            fix="give another folder",
        )
