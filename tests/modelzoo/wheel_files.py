"""Wheels made for a test, and pip told to look for packages in one folder alone."""

import os
import zipfile
from pathlib import Path

import pytest

from easytransfer.run.atomic import sha256


def write_wheel(folder: Path, name: str, version: str, files: dict[str, Path | bytes], requires: str = "") -> str:
    """Writes the wheel of a package with these files; returns its SHA-256."""
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    info = {
        "METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as writer:
        for inside, content in files.items():
            writer.writestr(inside, content if isinstance(content, bytes) else content.read_bytes())
        for inside, text in info.items():
            writer.writestr(f"{stem}.dist-info/{inside}", text)
    return sha256(path)


@pytest.fixture
def only_index(tmp_path, monkeypatch):
    """The folder that pip takes packages from, as the configuration of pip says; no network, no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    configuration.write_text(f"[global]\nno-index = true\nfind-links = {folder}\ndisable-pip-version-check = true\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    return folder
