"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

import easytransfer  # noqa: F401 - sets TensorFlow's environment before a test module imports TensorFlow

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("EZ_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"real data sets not found at {folder}; set EZ_SHARED to the folder that holds data/")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded two-layer BERT folder with a small vocabulary."""
    from modelzoo.commands import make_tiny

    folder = tmp_path_factory.mktemp("zoo") / "tiny-bert"
    make_tiny(folder)
    return folder
