"""Models are exported beside each other, never one inside another."""

from __future__ import annotations

from pathlib import Path

import pytest

from easytransfer.errors import ConfigError
from easytransfer.export.base_folder import check_base


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A folder with version 3 of one model."""
    base = tmp_path / "my exports"
    (base / "model" / "3").mkdir(parents=True)
    (base / "model" / "3" / "saved_model.pb").touch()
    return base


def test_the_next_version_has_a_place(exported, tmp_path):
    check_base(exported)
    check_base(tmp_path / "new")
    check_base(tmp_path / "new", flat=True)
    check_base(exported / "model", flat=True)


def test_a_model_is_not_written_into_a_model(exported):
    with pytest.raises(ConfigError, match=f"--exportDirBase='{exported}', or --exportFlat for its next") as error:
        check_base(exported / "model")
    assert "is an exported model, with version 3" in str(error.value)


@pytest.mark.parametrize("inside", [".", "assets", "assets/further"])
@pytest.mark.parametrize("flat", [False, True])
def test_nothing_is_written_into_a_version(exported, inside, flat):
    with pytest.raises(ConfigError, match=f"an exported version; give the folder of all models, such as {exported}"):
        check_base(exported / "model" / "3" / inside, flat)


def test_versions_do_not_hide_models_from_a_server(exported):
    with pytest.raises(ConfigError, match="is a folder of models: versions in it would hide model from a server"):
        check_base(exported, flat=True)
