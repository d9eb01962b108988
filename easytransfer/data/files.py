"""Table specs to files, and files to byte streams."""

from __future__ import annotations

import contextlib
import glob
import gzip
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from easytransfer.config.encoding import AUTO
from easytransfer.config.job import JobConfig
from easytransfer.config.paths import expand_home, user_path
from easytransfer.data.encodings import as_utf8, marked_encoding, skip_mark, unmarked_encoding
from easytransfer.data.picture_folders import beside_classes, class_folders, has_image_name, is_seen
from easytransfer.errors import ConfigError, DataError, closest
from easytransfer.run.environment import input_records
from easytransfer.run.log import say_once

# What well-known binary files begin with.
_SIGNATURES = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF-": "a PDF document",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"\x1f\x8b": "gzip data",
    b"PAR1": "a Parquet file",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    **{b"\x80" + bytes([protocol]): "a pickle, which can run code when it is read" for protocol in range(2, 6)},
}
# Share of control characters from which a file that is no valid UTF-8 either is not text with some bad rows.
_BINARY_SHARE = 0.1
_BEGINNING = 4096
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1b"))
# What is a table beside directories of pictures; other files, such as a README, are none there.
_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".tfrecord", ".tfrecords", ".parquet", ".npz")
# `arrays.npz#train` means the arrays of that file whose names end in `_train`.
_NPZ_PART = ".npz#"
# A small file may be all zeros.
_BOMB_BYTES = 1 << 30
_BOMB_RATIO = 200
# Configurations that come with an application name its sample tables by where a checkout has them.
SAMPLES = "the sample tables are written into this folder by: easy_transfer_app examples"
_LIST_SUFFIXES = (".list_csv", ".list_tfrecord")
# Endings of folders, with a `/` behind, that a reader of an application takes as they are; see `data.app_forms`.
FOLDER_ENDINGS: set[str] = set()


def expand(spec: str | os.PathLike[str] | Sequence[str]) -> list[str]:
    """Lists the files of a table spec: file, glob, directory, comma list or sequence of these, or file list.

    Directories and globs give their visible files in sorted order (names that start with `.` or `_` are skipped, but
    for pictures). A directory of pictures stands for itself, one with subdirectories of pictures for these; what is
    left out of them is told.

    Raises:
        ConfigError: The spec is empty or names a table service.
        DataError: There is no such file.
    """
    if not isinstance(spec, (str, os.PathLike)):
        return [file for part in spec for file in _expand_one(part)]
    spec = os.fspath(spec).strip()
    if not spec:
        raise ConfigError("the table name is empty", accepted="a file, glob, directory or comma list of these")
    # A file whose name contains a comma or a glob character is still one file.
    parts = [spec] if os.path.exists(spec) else [part.strip() for part in spec.split(",") if part.strip()]
    files: list[str] = []
    for part in parts:
        files.extend(_expand_one(part))
    return files


def _expand_one(spec: str | os.PathLike[str]) -> list[str]:
    try:
        spec = expand_home(os.fspath(spec))
    except ValueError as error:
        raise DataError(f"table file {spec} does not exist", fix=str(error)) from None
    if spec.startswith("odps://"):
        raise ConfigError(
            "odps:// tables are not supported",
            received=spec,
            fix="export the table to TSV or TFRecord and name that file",
        )
    if os.path.isdir(spec):
        return [spec.rstrip("/")] if ending_of(spec, FOLDER_ENDINGS) else _expand_folder(spec)
    if os.path.exists(real_path(spec)):
        return read_file_list(spec) if spec.endswith(_LIST_SUFFIXES) else [spec]
    if glob.has_magic(spec):
        found = [name for name in glob.glob(spec, recursive=True) if os.path.isfile(name)]
        found = [name for name in found if is_seen(os.path.basename(name))]
        if found:
            return sorted(found)
        raise DataError(f"no file matches {spec}")
    fix = SAMPLES if spec.startswith("examples/") and not os.path.isdir("examples") else _nearest_file(spec)
    raise DataError(f"table file {spec} does not exist", fix=fix)


def _expand_folder(folder: str) -> list[str]:
    """Lists a directory: its table files; itself where it holds pictures; or its subdirectories with pictures."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    files = [entry.path for entry in entries if is_seen(entry.name) and entry.is_file()]
    tables = [path for path in files if path.endswith(_LIST_SUFFIXES) or table_suffix(path) in _TABLE_SUFFIXES]
    classes = class_folders(folder, [entry.name for entry in entries if entry.is_dir()])
    if classes and files:
        return beside_classes(folder, classes, files, tables)
    if any(map(has_image_name, files)) and not tables:
        return [folder.rstrip("/")]
    if not (files or classes):
        raise DataError(f"directory {folder} has no table file and no pictures")
    return files or classes


def real_path(name: str) -> str:
    """Returns the file of the file system behind an entry of `expand`, without the part of an `.npz` file."""
    before, mark, _ = name.rpartition(_NPZ_PART)
    return before + mark[:-1] if mark else name


def ending_of(path: str, endings: Iterable[str]) -> str | None:
    """Returns the longest of the endings that a path has, None where it has none; those with a `/` are of folders."""
    name = f"{os.path.abspath(path)}/" if os.path.isdir(path) else path
    return max((ending for ending in endings if name.lower().endswith(ending)), key=len, default=None)


def is_bomb(unpacked: int, packed: int) -> bool:
    """Returns whether a compressed file unpacks to so much more than its own size that its content is no data.

    Weights and pictures hardly shrink, text to a fifth; only repetition, such as zeros, gets 1000 times smaller.
    """
    return unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * packed


def is_picture(data: bytes) -> bool:
    """Returns whether bytes begin like a JPEG, PNG, WebP, BMP or PFM file."""
    return data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM", b"Pf\n", b"PF\n")) or (
        data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    )


def _nearest_file(spec: str) -> str | None:
    folder = Path(spec).parent
    if not folder.is_dir():
        return f"directory {folder} does not exist"
    near = closest(Path(spec).name, [entry.name for entry in folder.iterdir()])
    return "did you mean " + " or ".join(str(folder / name) for name in near) + "?" if near else None


def read_file_list(path: str) -> list[str]:
    """Returns the files that a file list names, one per line, relative to the working directory or to the list.

    A first line of digits only is taken for the number of rows.

    Raises:
        DataError: The list cannot be read, is empty, or names a missing file.
    """
    path = str(user_path(path))
    with reading(path), open_text(path) as stream:
        lines = [line.strip() for line in stream.read().decode("utf-8").splitlines() if line.strip()]
    if lines and lines[0].isdigit() and not os.path.exists(lines[0]):
        lines = lines[1:]  # the number of rows, which the reader counts itself
    if not lines:
        raise DataError(f"file list {path} names no file")
    beside = os.path.dirname(path)
    names = [name if os.path.exists(name) or name.startswith("~") else os.path.join(beside, name) for name in lines]
    return [file for name in names for file in _expand_one(name)]


def part_path(table: Path, worker: int, workers: int) -> Path:
    """Returns where worker `worker` of `workers` writes its share of a table."""
    return table.with_name(f"{table.name}.part-{worker}-of-{workers}")


def table_suffix(path: str) -> str:
    """Returns the lower-case suffix that tells a file's form, looking through `.gz`; empty when there is none."""
    name = os.path.basename(path).lower()
    return os.path.splitext(name[:-3] if name.endswith(".gz") else name)[1]


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turns failures of the file system, decompression and decoding of `path` into DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"cannot read {path}: {reason}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not valid UTF-8: {error.reason} at byte {error.start}") from error


def open_binary(path: str) -> BinaryIO:
    """Opens a file for reading, decompressed when its name ends in `.gz`."""
    if path.lower().endswith(".gz"):
        return io.BufferedReader(gzip.open(path), 1 << 20)  # type: ignore[arg-type,return-value]
    return open(path, "rb", 1 << 20)


def open_text(path: str, encoding: str = AUTO) -> BinaryIO:
    """Opens a text file as bytes of UTF-8, behind its byte order mark if it has one.

    Args:
        path: The file.
        encoding: Of the file; `auto` is UTF-8, or what a mark at the beginning says.

    Raises:
        DataError: The file begins like UTF-16 without a mark, or like something that is no text.
    """
    stream = open_binary(path)
    try:
        begin = stream.peek(_BEGINNING)[:_BEGINNING]  # type: ignore[attr-defined]
        if encoding == AUTO and (found := marked_encoding(begin)):
            say_once(f"{path}: read as {found}, which the mark at its beginning says")
            encoding = found
        elif encoding == AUTO and (found := unmarked_encoding(begin)):
            fix = f"read it with --encoding={found}, or convert it to UTF-8: iconv -f {found} -t UTF-8 OLD > NEW"
            raise DataError(f"{path} looks like {found}", accepted="UTF-8", fix=fix)
        if encoding not in (AUTO, "utf-8"):
            stream = as_utf8(stream, encoding, path)
            begin = stream.peek(_BEGINNING)[:_BEGINNING]  # type: ignore[attr-defined]
        if what := _binary_kind(begin):
            fix = "give it a name that ends in .gz" if "gzip" in what else "name a table of text"
            raise DataError(f"{path} is not text: it looks like {what}", fix=fix)
        skip_mark(stream)
    except BaseException:
        stream.close()
        raise
    return stream


def _binary_kind(begin: bytes) -> str | None:
    """Returns what a file that begins like this is, None when it may be text."""
    known = next((name for signature, name in _SIGNATURES.items() if begin.startswith(signature)), None)
    if known or not begin:
        return known
    controls = len(begin) - len(begin.translate(None, _CONTROL))
    if controls < _BINARY_SHARE * len(begin):
        return None
    try:
        begin[: begin.rfind(b"\n") + 1 or None].decode("utf-8")
    except UnicodeDecodeError:
        return "binary data"
    return None


def stamps(files: Iterable[str]) -> list[list[Any]]:
    """Returns name, size and time of change of files, those below directories included, in sorted order."""
    found = []
    for name in files:
        path = Path(real_path(name))
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                status = file.stat()
                found.append([os.fspath(file), status.st_size, status.st_mtime_ns])
    return found


def table_records(config: JobConfig) -> list[dict[str, Any]]:
    """Returns a record of every file of the tables of a training, by which it knows them again when it goes on."""
    tables = {"training": config.training_tables(), "evaluation": config.data.eval_table}
    return input_records({name: map(real_path, expand(spec)) for name, spec in tables.items() if spec})
