"""Archives of models: unpacked only when every entry is a plain file inside of the folder, of a size it can have."""

from __future__ import annotations

import gzip
import lzma
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from easytransfer.data.files import is_bomb
from easytransfer.errors import ModelError, ResourceError

_CHUNK = 1 << 20
# An archive that unpacks to more than this is refused: the largest known model is about 1.4 GB.
MAX_UNPACKED_BYTES = 20 << 30
# A model has some dozens of files.
MAX_ENTRIES = 1000
# Names and attributes of one tar entry; a longer name could not be created anyway.
_MOST_HEADER_BYTES = 8 << 10
_GZIP = b"\x1f\x8b"
_ZIP_MODE_SHIFT, _KIND_MASK, _LINK_KIND = 16, 0o170000, 0o120000
# What the standard library raises for archives that are damaged, encrypted, or made to deceive it.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, gzip.BadGzipFile),
    *(ValueError, LookupError, OverflowError, RuntimeError),
)


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a zip or tar file of plain files and folders into the empty folder `target`.

    Nothing is written before all entries have been looked at.

    Raises:
        ModelError: The file is no archive or damaged; it unpacks to too much; an entry is a link, a device, or would
            lie outside `target`.
        ResourceError: There is no room for its content.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as source:
                _unpack_zip(source, archive, target)
        else:
            with _tar(archive) as (source, guard):
                _unpack_tar(source, guard, archive, target)
    except _DAMAGED as error:
        raise ModelError(f"{archive} is damaged or no archive for us: {error or type(error).__name__}") from None
    except OSError as error:
        raise ModelError(f"{archive} cannot be unpacked: {error.strerror or error}") from None


class _SmallReads:
    """A stream that refuses to read much at once: tar entries say themselves how long their names are."""

    def __init__(self, stream: BinaryIO) -> None:
        self.most = _MOST_HEADER_BYTES
        self.seek, self.tell, self._read = stream.seek, stream.tell, stream.read

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.most:
            raise tarfile.ReadError(f"an entry claims {size} bytes of header")
        return self._read(size)


@contextmanager
def _tar(archive: Path) -> Iterator[tuple[tarfile.TarFile, _SmallReads]]:
    with open(archive, "rb") as file:
        is_gzip = file.read(len(_GZIP)) == _GZIP
    with gzip.open(archive) if is_gzip else open(archive, "rb") as stream:
        guard = _SmallReads(stream)  # type: ignore[arg-type]
        try:
            source = tarfile.open(fileobj=guard, mode="r:")  # type: ignore[call-overload]
        except (tarfile.ReadError, OSError, EOFError, zlib.error) as error:
            accepted = "zip, tar, tar.gz, tgz"
            raise ModelError(f"{archive} is not an archive: {error}", accepted=accepted) from None
        with source:
            yield source, guard


def _unpack_zip(source: zipfile.ZipFile, archive: Path, target: Path) -> None:
    size, entries = _Size(archive), []
    for info in source.infolist():
        size.add(info.file_size)
        if (info.external_attr >> _ZIP_MODE_SHIFT) & _KIND_MASK == _LINK_KIND:
            raise ModelError(f"archive {archive} holds a link", received=info.filename)
        if not info.is_dir():
            entries.append((info, _inside(target, info.filename)))
    size.check_room(target)
    for info, path in entries:
        with source.open(info) as reader:
            _copy(reader, path)


def _unpack_tar(source: tarfile.TarFile, guard: _SmallReads, archive: Path, target: Path) -> None:
    size, entries = _Size(archive), []
    # Looked at one by one as they are found: listing all of them would unpack all of a gzip file first.
    for member in source:
        size.add(member.size)
        if not member.isfile() and not member.isdir():
            raise ModelError(f"archive {archive} holds something other than a plain file", received=member.name)
        if member.isfile():
            entries.append((member, _inside(target, member.name)))
    size.check_room(target)
    guard.most = 4 * _CHUNK
    for member, path in entries:
        with source.extractfile(member) as reader:  # type: ignore[union-attr]
            _copy(reader, path)


class _Size:
    """Adds up what an archive says of itself; zip and tar readers give no more bytes than that.

    Args:
        archive: The file.
    """

    def __init__(self, archive: Path) -> None:
        self._archive, self._packed = archive, archive.stat().st_size
        self._bytes = self._entries = 0

    def add(self, size: int) -> None:
        """Counts an entry; raises ModelError when the archive becomes too much."""
        self._bytes, self._entries = self._bytes + size, self._entries + 1
        if size < 0:
            raise ModelError(f"{self._archive} is damaged: an entry has {size} bytes")
        if self._entries > MAX_ENTRIES:
            raise ModelError(f"{self._archive} holds too many files", accepted=f"at most {MAX_ENTRIES}")
        if self._bytes > MAX_UNPACKED_BYTES or is_bomb(self._bytes, self._packed):
            raise ModelError(
                f"{self._archive} of {self._packed} bytes unpacks to {self._bytes} or more",
                accepted=f"at most {MAX_UNPACKED_BYTES >> 30} GiB, and not hundreds of times its own size",
            )

    def check_room(self, target: Path) -> None:
        """Raises ResourceError when the content does not fit on the disk."""
        free = shutil.disk_usage(target).free
        if self._bytes > free:
            raise ResourceError(
                f"{self._archive} unpacks to {self._bytes} bytes, {target} has room for {free}", fix="free some space"
            )


def _inside(target: Path, name: str) -> Path:
    pure = PurePosixPath(name.replace("\\", "/"))
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise ModelError("an archive entry would be written outside its folder", received=name)
    return target.joinpath(*pure.parts)


def _copy(reader: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as writer:
        shutil.copyfileobj(reader, writer, _CHUNK)
