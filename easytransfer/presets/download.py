"""Downloads that can be resumed and are checked, and archives that cannot write outside their folder."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from easytransfer.errors import ModelError, ResourceError
from easytransfer.run.atomic import sha256 as file_sha256

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
# An archive that unpacks to more than this is refused: the largest known model is about 1.4 GB.
MAX_UNPACKED_BYTES = 20 << 30


def download(
    url: str, folder: Path, *, sha256: str | None = None, progress: Callable[[int, int | None], None] | None = None
) -> Path:
    """Fetches a file into `folder`, continuing an interrupted download. Proxies are taken from the environment.

    Args:
        url: http or https address.
        folder: Where the partial and the finished file lie, under a name derived from the address.
        sha256: Expected SHA-256; a file that differs is deleted.
        progress: Called with (bytes so far, total or None).

    Raises:
        ModelError: The server refuses, the connection breaks (call again to continue), or the checksum differs.
        ResourceError: The folder cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise ModelError("the address of a model must be http or https", received=url)
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    part, note = folder / f"{key}.part", folder / f"{key}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, note, progress)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise ModelError(f"download of {url} failed: {error}", fix="run the same command again to continue") from None
    except OSError as error:
        raise ResourceError(f"cannot write to {folder}: {error}", fix="check free space and permissions") from None
    actual = file_sha256(part)
    if sha256 and actual != sha256.lower():
        part.unlink()
        note.unlink(missing_ok=True)
        raise ModelError(
            f"{url} arrived with another checksum",
            received=actual,
            accepted=sha256,
            fix="the file was deleted; fetch it again",
        )
    done = folder / f"{key}-{Path(urllib.request.url2pathname(url.split('?')[0])).name}"
    os.replace(part, done)
    note.unlink(missing_ok=True)
    return done


def _transfer(url: str, part: Path, note: Path, progress: Callable[[int, int | None], None] | None) -> None:
    request = urllib.request.Request(url)
    start = part.stat().st_size if part.is_file() else 0
    validator = json.loads(note.read_text()).get("validator") if start and note.is_file() else None
    # Without a validator a changed file could be glued to an old beginning.
    start = start if validator else 0
    if start:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        # 416: nothing is left to send when the partial file is already whole.
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return
        raise
    with response:
        if response.status != 206:
            start = 0
        note.write_text(json.dumps({"validator": _validator(response.headers)}))
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with open(part, "ab" if start else "wb") as handle:
            while chunk := response.read(_CHUNK):
                handle.write(chunk)
                if progress:
                    progress(handle.tell(), total)
            handle.flush()
            os.fsync(handle.fileno())
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")


def _validator(headers: http.client.HTTPMessage) -> str | None:
    tag = headers.get("ETag")
    # If-Range needs a strong validator (RFC 9110, section 13.1.5).
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a zip or tar file of plain files and folders into the empty folder `target`.

    Raises:
        ModelError: The file is no archive, or an entry is a link, a device, or would lie outside `target`.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as source:
                _unpack_zip(source, target)
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as source:
                _unpack_tar(source, target)
        else:
            raise ModelError(f"{archive} is not an archive", accepted="zip, tar, tar.gz, tgz")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise ModelError(f"{archive} is damaged: {error}") from None


def _unpack_zip(source: zipfile.ZipFile, target: Path) -> None:
    infos = [info for info in source.infolist() if not info.is_dir()]
    _check_total(sum(info.file_size for info in infos), source.filename)
    for info in infos:
        # The upper half of external_attr is the Unix mode; 0o120000 marks a symbolic link.
        if (info.external_attr >> 16) & 0o170000 == 0o120000:
            raise ModelError(f"archive {source.filename} holds a link", received=info.filename)
        with source.open(info) as reader:
            _copy(reader, _inside(target, info.filename))


def _unpack_tar(source: tarfile.TarFile, target: Path) -> None:
    members = [member for member in source.getmembers() if not member.isdir()]
    _check_total(sum(member.size for member in members), source.name)
    for member in members:
        if not member.isfile():
            raise ModelError(f"archive {source.name} holds something other than a plain file", received=member.name)
        reader = source.extractfile(member)
        if reader is not None:
            with reader:
                _copy(reader, _inside(target, member.name))


def _check_total(size: int, archive: object) -> None:
    if size > MAX_UNPACKED_BYTES:
        raise ModelError(f"{archive} unpacks to {size >> 30} GiB", accepted=f"at most {MAX_UNPACKED_BYTES >> 30} GiB")


def _inside(target: Path, name: str) -> Path:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or (pure.parts and ":" in pure.parts[0]):
        raise ModelError("an archive entry would be written outside its folder", received=name)
    return target.joinpath(*pure.parts)


def _copy(reader: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
