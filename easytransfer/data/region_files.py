"""Files with the regions of many images, found by the id of the image; nothing but where they begin is held in memory.

A file is gone through once. What was found is written beside it, where its folder takes it, and is used until the file
changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from easytransfer.data.files import expand
from easytransfer.data.regions import ImageRegions, image_of_record, regions_of_record, regions_of_tsv
from easytransfer.errors import ConfigError, DataError
from easytransfer.run.atomic import atomic_path
from easytransfer.run.log import say

UNKNOWN_IMAGE = "unknown image"
_RECORDS = (".tfrecord", ".tfrecords")
_TSV = (".tsv",)
# Of a record before its content in a TFRecord file (length and checksum), and behind it.
_HEAD, _TAIL = 12, 4
# A row of regions is no longer; one without a line end must not fill memory.
_LONGEST = 1 << 28


class RegionFiles:
    """The regions of images in TSV or TFRecord files.

    Args:
        spec: File, glob, folder or comma list; files end in .tsv or .tfrecord.

    Raises:
        ConfigError: A file has another ending.
        DataError: There is no such file, it cannot be used, or two records are of the same image.

    Example:
        >>> RegionFiles("train2014_obj36.tsv").find("COCO_train2014_000000458752").features.shape
        (36, 2048)
    """

    def __init__(self, spec: str) -> None:
        self.files = expand(spec)
        self._indexes = [_Index(Path(file)) for file in self.files]
        self._check_once()

    def __len__(self) -> int:
        return sum(len(index.keys) for index in self._indexes)

    def find(self, image: str) -> ImageRegions:
        """Returns the regions of an image, not yet checked.

        Raises:
            ValueError: There is none of that id, or its record is damaged; the message is the reason shown to the user.
        """
        for index in self._indexes:
            record = index.record(image)
            if record is not None:
                return index.read(record)
        raise ValueError(f"{UNKNOWN_IMAGE}: {image!r} is in no record of {', '.join(self.files)[:200]}")

    def _check_once(self) -> None:
        """Refuses images that several files have: whose regions they get would depend on the order of the files."""
        keys = np.concatenate([index.keys for index in self._indexes])
        which = np.concatenate([np.full(len(index.keys), number) for number, index in enumerate(self._indexes)])
        order = np.argsort(keys, kind="stable")
        for place in np.flatnonzero(keys[order][1:] == keys[order][:-1]):
            first, second = (self._indexes[which[order[place + step]]] for step in (0, 1))
            # Hashes of other ids may be equal.
            image = second.image_at(keys[order[place]])
            if image is not None and first is not second and first.record(image) is not None:
                raise DataError(
                    f"{first.path} and {second.path} both have regions of image {image!r}", fix="leave one of them out"
                )


class _Index:
    """Where the records of a file begin, by a hash of the id of their image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.name.endswith(_RECORDS):
            self.read: Callable[[bytes], ImageRegions] = regions_of_record
            self._id, scan = image_of_record, _scan_records
        elif path.name.endswith(_TSV):
            self.read, self._id, scan = regions_of_tsv, _id_of_line, _scan_lines
        else:
            raise ConfigError(
                "a file of regions has an unknown ending", received=str(path), accepted=(*_TSV, *_RECORDS)
            )
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        self.keys, self._begins, self._sizes = self._stored() or self._made(scan)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def record(self, image: str) -> bytes | None:
        """Returns the record of an image, None where there is none."""
        key = _key(image)
        for place in range(*(int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))):
            found = self._at(place)
            if self._id(found) == image:
                return found
        return None

    def image_at(self, key: np.uint64) -> str | None:
        """Returns the id of the first image with a key."""
        place = int(np.searchsorted(self.keys, key))
        return self._id(self._at(place)) if place < len(self.keys) and self.keys[place] == key else None

    def _at(self, place: int) -> bytes:
        size, begin = int(self._sizes[place]), int(self._begins[place])
        found = os.pread(self._file, size, begin)
        if len(found) < size:
            raise DataError(f"{self.path} ends too early: it was changed while it is used")
        return found

    def _stamp(self) -> list[int]:
        status = os.fstat(self._file)
        return [status.st_size, status.st_mtime_ns]

    @property
    def _beside(self) -> Path:
        return self.path.with_name(f".{self.path.name}.index.npz")

    def _stored(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Returns the index of an earlier job, None where there is none of this state of the file."""
        try:
            with np.load(self._beside, allow_pickle=False) as stored:
                if stored["stamp"].tolist() != self._stamp():
                    return None
                found = stored["keys"], stored["begins"], stored["sizes"]
        # A damaged index is made anew.
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        fits = len({len(each) for each in found}) == 1 and (found[1] + found[2] <= self._stamp()[0]).all()
        return found if fits else None

    def _made(self, scan: Callable[[Path], Iterator[tuple[str, int, bytes]]]) -> tuple[np.ndarray, ...]:
        say(f"looking for images in {self.path}, once")
        stamp = self._stamp()
        images, begins, sizes = [], [], []
        for image, begin, record in scan(self.path):
            images.append(_key(image))
            begins.append(begin)
            sizes.append(len(record))
        if not images:
            raise DataError(f"{self.path} has no record")
        order = np.argsort(np.array(images, np.uint64), kind="stable")
        self.keys = np.array(images, np.uint64)[order]
        self._begins, self._sizes = (np.array(each, np.int64)[order] for each in (begins, sizes))
        self._refuse_repeated()
        # A folder that cannot be written to: the next job looks again.
        with contextlib.suppress(OSError), atomic_path(self._beside) as partial, open(partial, "wb") as file:
            np.savez(file, stamp=np.array(stamp), keys=self.keys, begins=self._begins, sizes=self._sizes)
        return self.keys, self._begins, self._sizes

    def _refuse_repeated(self) -> None:
        for place in np.flatnonzero(self.keys[1:] == self.keys[:-1]):
            first, second = (self._id(self._at(int(place) + step)) for step in (0, 1))
            if first == second:
                raise DataError(f"{self.path} has two records of image {first!r}", fix="leave one of them out")


def _key(image: str) -> np.uint64:
    digest = hashlib.blake2b(image.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _id_of_line(line: bytes) -> str:
    return line.split(b"\t", 1)[0].decode("utf-8", "backslashreplace")


def _scan_lines(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yields id, begin and content of the rows of a TSV file; empty lines are none."""
    begin = 0
    with open(path, "rb") as file:
        while line := file.readline(_LONGEST):
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                raise DataError(f"{path} has a line of more than {_LONGEST} bytes at byte {begin}")
            if line.strip():
                if b"\t" not in line:
                    raise DataError(f"{path} is no TSV file of regions: no tab in the line at byte {begin}")
                yield _id_of_line(line), begin, line
            begin += len(line)


def _scan_records(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yields id, begin and content of the records of a TFRecord file, whose checksums TensorFlow compares."""
    import tensorflow as tf

    begin = 0
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            begin += _HEAD
            try:
                yield image_of_record(record), begin, record
            except ValueError as error:
                raise DataError(f"{path} at byte {begin}: {error}") from None
            begin += len(record) + _TAIL
    except tf.errors.OpError as error:
        raise DataError(f"{path} is damaged behind byte {begin}: {error.message}") from None


def records_of_tsv(files: Sequence[str]) -> Iterator[tuple[str, ImageRegions]]:
    """Yields id and regions of every row of TSV files, for `write_region_records`.

    Raises:
        DataError: A row is damaged.
    """
    for name in files:
        for image, _, line in _scan_lines(Path(name)):
            try:
                yield image, regions_of_tsv(line)
            except ValueError as error:
                raise DataError(f"{name}: image {image!r}: {error}") from None
