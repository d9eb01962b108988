"""Downloads that can be resumed and are checked, from addresses that were meant."""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import json
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from easytransfer.errors import ModelError, ResourceError
from easytransfer.run.atomic import sha256 as file_sha256
from easytransfer.run.secrets import without_secrets

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
# More than any model; a server that never stops sending would fill the disk.
MAX_BYTES = 20 << 30
_MOST_REDIRECTIONS = 5
_NAME_CHARACTERS = 100
# What a server says of a file that is not there, was taken away, or is closed to everyone; trying again does not help.
_GONE = (403, 404, 410)
_AGAIN = "run the same command again to continue"


def check_address(url: str) -> SplitResult:
    """Returns the parts of an address that a model may be fetched from.

    Raises:
        ModelError: It is not http or https, holds a password, or is link-local, where clouds answer with credentials.
    """
    try:
        parts = urlsplit(url)
        secret, host, _ = parts.password or parts.username, parts.hostname, parts.port
    except ValueError as error:
        raise ModelError(f"the address of a model is not readable: {error}") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise ModelError("the address of a model must be http or https", received=without_secrets(url))
    if secret:
        raise ModelError(
            "the address of a model holds a user name or password, which would end up in logs",
            received=without_secrets(url),
            fix="download the file with another program and import the folder",
        )
    if any(address.is_link_local for address in _addresses(host)):
        raise ModelError("models are not fetched from link-local addresses", received=without_secrets(url))
    return parts


def download(
    url: str, folder: Path, *, sha256: str | None = None, progress: Callable[[int, int | None], None] | None = None
) -> Path:
    """Fetches a file into `folder`, continuing an interrupted download. Proxies are taken from the environment.

    Args:
        url: http or https address.
        folder: Where the partial and the finished file lie, under a name derived from the address.
        sha256: Expected SHA-256, or MD5 of 32 digits where its publisher has no better; a file that differs is deleted.
        progress: Called with (bytes so far, total or None).

    Raises:
        ModelError: The server refuses, the connection breaks (call again to continue), or the checksum differs.
        ResourceError: The folder cannot be written.
    """
    last = unquote(check_address(url).path).rpartition("/")[2]
    shown = without_secrets(url)
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    part, note = folder / f"{key}.part", folder / f"{key}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, note, progress)
    except urllib.error.HTTPError as error:
        if error.code in _GONE:
            raise ModelError(f"{shown} cannot be fetched any more: the server answers HTTP {error.code}") from None
        raise ModelError(f"download of {shown} failed: {without_secrets(str(error))}", fix=_AGAIN) from None
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as error:
        raise ModelError(f"download of {shown} failed: {without_secrets(str(error))}", fix=_AGAIN) from None
    except OSError as error:
        raise ResourceError(f"cannot write to {folder}: {error}", fix="check free space and permissions") from None
    if sha256 and (actual := _digest(part, sha256)) != sha256.lower():
        part.unlink()
        note.unlink(missing_ok=True)
        raise ModelError(
            f"{shown} arrived with another checksum",
            received=actual,
            accepted=sha256,
            fix="the file was deleted; fetch it again",
        )
    done = folder / f"{key}-{re.sub(r'[^A-Za-z0-9._-]', '_', last)[-_NAME_CHARACTERS:]}"
    os.replace(part, done)
    note.unlink(missing_ok=True)
    return done


def _digest(path: Path, like: str) -> str:
    """Returns the checksum of a file: MD5 where `like` has 32 digits, else SHA-256."""
    if len(like) != hashlib.md5(usedforsecurity=False).digest_size * 2:
        return file_sha256(path)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server elsewhere, but not to files, out of encryption, or from the internet into the own network."""

    max_redirections = _MOST_REDIRECTIONS

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Returns the next request; raises ModelError when it must not be made."""
        old, new = urlsplit(req.full_url), check_address(newurl)
        if old.scheme == "https" and new.scheme == "http":
            raise ModelError(f"{old.hostname} redirects from https to http", received=without_secrets(newurl))
        if _is_internal(str(new.hostname)) and not _is_internal(str(old.hostname)):
            raise ModelError(f"{old.hostname} redirects into this network", received=without_secrets(newurl))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_internal(host: str) -> bool:
    return any(not address.is_global for address in _addresses(host))


def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Returns the addresses of a host; none when it is not known here, as behind a proxy."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return []
    addresses = [ipaddress.ip_address(text) for text in sorted(found)]
    return [getattr(address, "ipv4_mapped", None) or address for address in addresses]


def _transfer(url: str, part: Path, note: Path, progress: Callable[[int, int | None], None] | None) -> None:
    request = urllib.request.Request(url)
    start = part.stat().st_size if part.is_file() else 0
    # Without a validator a changed file could be glued to an old beginning.
    validator = _noted(note) if start else None
    start = start if validator else 0
    if validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    try:
        response = urllib.request.build_opener(_Redirects).open(request, timeout=_TIMEOUT_SECONDS)
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
                if handle.tell() > MAX_BYTES:
                    part.unlink()
                    raise ModelError(f"{without_secrets(url)} sends more than any model", accepted=f"{MAX_BYTES} bytes")
                if progress:
                    progress(handle.tell(), total)
            handle.flush()
            os.fsync(handle.fileno())
        if total is not None and part.stat().st_size != total:
            raise ConnectionError(f"{part.stat().st_size} of {total} bytes arrived")


def _noted(note: Path) -> str | None:
    """Returns the validator of a partial file; a note that a crash cut off is none."""
    try:
        validator = json.loads(note.read_text())["validator"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return validator if isinstance(validator, str) else None


def _validator(headers: http.client.HTTPMessage) -> str | None:
    tag = headers.get("ETag")
    # If-Range needs a strong validator (RFC 9110, section 13.1.5).
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")
