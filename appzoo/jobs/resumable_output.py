"""Outputs written piece by piece: a killed job goes on where it was, and several workers write one table in order."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from appzoo.jobs.tables import output_form, quarantine_path
from appzoo.jobs.text_counts import counted_since, say_texts
from easytransfer.config.job import DataConfig, DistributionConfig, RuntimeConfig
from easytransfer.data.app_forms import write_rows, writer_of
from easytransfer.data.batches import prefetch
from easytransfer.data.encoded import EncodedTable
from easytransfer.data.files import expand, part_path, real_path
from easytransfer.data.formats import form_of
from easytransfer.data.joining import join_tables
from easytransfer.data.npy_tables import NpzWriter
from easytransfer.data.table import BadRows, RowChunk, RowCount, Table
from easytransfer.data.table_writer import TableWriter, check_output
from easytransfer.data.writers import open_writer
from easytransfer.errors import ConfigError, DataError, ResourceError
from easytransfer.run.atomic import write_json
from easytransfer.run.folder import plain
from easytransfer.run.lock import FolderLock
from easytransfer.run.log import say
from easytransfer.run.progress import Progress

PROGRESS = "progress.json"
# Progress lines where there is no terminal are this far apart.
LINE_SECONDS = 10.0
# Finished pieces that may wait to be written, so that a slow disk holds the model back.
WAITING = 2
Columns = dict[str, Any]


@dataclass
class Account:
    """What has become of the rows so far; stored with every piece."""

    pieces: int = 0
    written: int = 0
    read: int = 0
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    position: int = 0
    bad_bytes: int = 0
    columns: list[str] = field(default_factory=list)
    # Counts of the texts, see `App.text_counts`.
    text: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Returns the row account for results, with the counts of the texts where there are any."""
        rows = {"read": self.read, "written": self.written, "rejected": self.rejected, "reasons": self.reasons}
        return {**rows, "text": self.text} if self.text else rows


class Output:
    """The output table of a job, as this worker writes it.

    With one worker it is written to its name. Worker w of n writes `<table>.part-<w>-of-<n>` with the rows of its
    share, a run of neighbouring rows, and `<table>.part-<w>-of-<n>.json` with its account; `merge` joins them.

    Args:
        data: Names the table, its form and the bad-row policy.
        distribution: Number of workers and which of them this is.
        runtime: Says whether a finished table may be replaced, and whether pieces of a killed job are used.
        key: What the rows depend on besides the input files; pieces of a job with another key are not used.
        float_format: Of floats in text tables, see `open_writer`.

    Raises:
        ConfigError: The table exists and may not be replaced, its form cannot be written, or there is no such worker.
    """

    def __init__(
        self,
        data: DataConfig,
        distribution: DistributionConfig,
        runtime: RuntimeConfig,
        key: dict[str, Any],
        float_format: str | None = None,
    ) -> None:
        self._data, self._float_format = data, float_format
        self._resume_mode, self._log_format = runtime.resume, runtime.log_format
        self.index, self.workers = distribution.task_index, distribution.workers()
        self.name = str(data.output_table)
        # A form that an application writes is made from JSON lines when all rows are there.
        self._ending = writer_of(self.name)
        self.form = "jsonl" if self._ending else output_form(data, self.name) or table_form(self.name)
        merged = Path(self.name.rstrip("/"))
        parts = [part_path(merged, worker, self.workers) for worker in range(self.workers)]
        self._parts = parts if self.workers > 1 else [merged]
        self.path = merged if data.merge else self._parts[self.index]
        self._check(self.path, runtime.overwrite)
        self._pieces = Path(f"{self.path}.pieces")
        inputs = [[name, _stamp(Path(real_path(name)))] for name in expand(data.input_table or "")]
        self._mode = str(key["mode"])
        self._key = plain({**key, "inputs": inputs, "workers": self.workers, "form": self.form})

    def _check(self, path: Path, overwrite: bool) -> None:
        if self.form != "npy":
            check_output(path, overwrite=overwrite)
        elif path.exists() and not (overwrite and path.is_dir()):
            raise ConfigError(f"output {path} exists", fix="choose another name or allow replacing it with --overwrite")
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(
        self,
        table: Table,
        encode: Callable[[RowChunk], EncodedTable],
        compute: Callable[[RowChunk, EncodedTable], Columns],
        *,
        columns: Sequence[str] | None = None,
        chunk_rows: int = 8192,
        text_counts: Counter[str] | None = None,
    ) -> Account:
        """Reads this worker's rows and writes what `compute` makes of them, in order.

        Reading and encoding run ahead in one thread, and writing behind in another, while `compute` runs in this one.

        Args:
            table: The input; its bad-row policy is set here.
            encode: Encodes a chunk and rejects its bad rows.
            compute: Returns the output columns, in their order, for the accepted rows of a chunk.
            columns: Columns of a table without rows; None makes an empty table an error.
            chunk_rows: Rows of a piece, at most.
            text_counts: What `encode` counts of the texts.

        Raises:
            DataError: A bad row is not allowed, every row is bad, or there is no row and `columns` is None.
            ResourceError: The output cannot be written, or another job is writing it.
        """
        start, stop = self._share(table)
        self._pieces.mkdir(exist_ok=True)
        lock = self._lock()
        account = Account()
        try:
            account = self._resume(start)
            table.bad_rows = self._bad_rows(account)
            counts = Counter() if text_counts is None else text_counts
            end = table.row_count() if stop is None else stop
            with _Meter(self._mode, self._log_format, start, account.position, end) as self._meter:
                self._write_pieces(table, encode, compute, account, stop, chunk_rows, counts)
            if not account.written:
                # The share of one worker may hold bad rows alone; `merge` looks at all of them.
                if self.workers == 1:
                    self._require_rows(account)
                self._write_empty(account, columns)
            self._join(account)
        finally:
            lock.close()
            table.bad_rows.close()
            if not account.pieces:
                shutil.rmtree(self._pieces, ignore_errors=True)
        say(f"wrote {account.written} rows to {self.path} ({account.rejected} rejected)")
        say_texts("input", account.text)
        return account

    def done(self, share: float) -> None:
        """Shows that `compute` has come so far, 0 to 1, with the chunk it was given."""
        self._meter.show(share)

    def merge(self) -> Account:
        """Joins the tables of all workers into one and removes them.

        Raises:
            ConfigError: The job has one worker.
            DataError: A part is missing, or belongs to another job; or every row of the table is bad.
        """
        if self.workers == 1:
            raise ConfigError("--merge joins the tables of several workers", fix="say how many: --workerCount=N")
        stored = [_read(Path(f"{part}.json")) for part in self._parts]
        missing = [str(part) for part, found in zip(self._parts, stored, strict=True) if not (found and part.exists())]
        if missing:
            raise DataError("parts to merge are missing", received=", ".join(missing), fix="run these workers first")
        foreign = [str(part) for part, found in zip(self._parts, stored, strict=True) if found["key"] != self._key]
        if foreign:
            raise DataError(
                "parts to merge were made by another job or from another table",
                received=", ".join(foreign),
                fix="merge with the flags of the workers, or run these workers again",
            )
        accounts = [Account(**found["account"]) for found in stored]
        filled = [part for part, account in zip(self._parts, accounts, strict=True) if account.written]
        columns = next((account.columns for account in accounts if account.written), accounts[0].columns)
        total = _total(accounts, columns)
        self._require_rows(total)
        self._finish(filled or self._parts[:1], self.path, columns)
        bad = [path for path in (quarantine_path(str(part)) for part in self._parts) if path.exists()]
        if bad:
            join_tables(bad, quarantine_path(str(self.path)), "text", [])
        for path in [*self._parts, *(Path(f"{part}.json") for part in self._parts), *bad]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return total

    def _require_rows(self, account: Account) -> None:
        """Refuses a table whose rows were all bad; one without a row is no mistake."""
        if account.rejected and not account.written:
            reasons = ", ".join(f"{reason}: {count}" for reason, count in Counter(account.reasons).most_common())
            count = RowCount(account.read, 0, account.rejected)
            raise count.nothing_usable(str(self._data.input_table), reasons)

    def _share(self, table: Table) -> tuple[int, int | None]:
        """Returns the numbers of the first row of this worker and of the first behind it."""
        if self.workers == 1:
            return 0, None
        rows = table.row_count()
        return rows * self.index // self.workers, rows * (self.index + 1) // self.workers

    def _resume(self, start: int) -> Account:
        """Returns how far an earlier, killed job of the same kind came; forgets what another kind of job left."""
        stored = _read(self._pieces / PROGRESS)
        if stored is not None and stored["key"] == self._key and self._resume_mode != "never":
            account = Account(**stored["account"])
            say(f"going on behind row {account.position} of {self._data.input_table}: the job was stopped there")
            return account
        if self._resume_mode == "must":
            raise ConfigError(f"resume=must, but there is no stopped job of this kind at {self._pieces}")
        if stored is not None:
            say(f"pieces of another job in {self._pieces} are replaced")
        for piece in [self._pieces / PROGRESS, *self._pieces.glob("[0-9]*")]:
            piece.unlink(missing_ok=True)
        return Account(position=start)

    def _bad_rows(self, account: Account) -> BadRows:
        """Returns the bad-row policy, counting on from what an earlier, killed job had met."""
        path = quarantine_path(str(self.path))
        if self._data.bad_rows == "quarantine" and path.exists():
            with open(path, "r+b") as file:
                file.truncate(account.bad_bytes)
        found = BadRows(self._data.bad_rows, self._data.max_bad_rows, path)
        found.count, found.reasons = account.rejected, Counter(account.reasons)
        return found

    def _lock(self) -> FolderLock:
        try:
            return FolderLock(self._pieces)
        except ResourceError as error:
            fix = "wait for it or choose another output"
            raise ResourceError(f"another job is writing {self.path}", fix=fix) from error

    def _write_pieces(
        self,
        table: Table,
        encode: Callable[[RowChunk], EncodedTable],
        compute: Callable[[RowChunk, EncodedTable], Columns],
        account: Account,
        stop: int | None,
        chunk_rows: int,
        text_counts: Counter[str],
    ) -> None:
        account_text, counted = account.text, text_counts.copy()
        before, start, bad = RowCount(account.read, 0, account.rejected), account.position, table.bad_rows

        def met() -> Account:
            count, aside = table.count, quarantine_path(str(self.path))
            texts = Counter(account_text)
            texts.update(counted_since(counted, text_counts))
            return Account(
                read=before.read + count.read,
                rejected=before.rejected + count.rejected,
                reasons=dict(bad.reasons),
                position=table.position,
                bad_bytes=aside.stat().st_size if aside.exists() else 0,
                text=dict(texts),
            )

        def encoded() -> Iterator[tuple[RowChunk | None, EncodedTable | None, Account]]:
            for chunk in table.chunks(size=chunk_rows, start=start, stop=stop):
                rows = encode(chunk)
                yield chunk.compact(), rows, met()
            yield None, None, met()  # for rows rejected behind the last chunk

        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, "writer") as thread:
            for chunk, rows, known in prefetch(encoded(), depth=2):
                self._meter.chunk(known.position)
                batch = compute(chunk, rows) if chunk is not None and rows is not None and len(rows) else None
                self.done(1.0)
                waiting.append(thread.submit(self._write_piece, account, batch, known))
                while len(waiting) > WAITING:
                    waiting.popleft().result()
            for future in waiting:
                future.result()

    def _write_piece(self, account: Account, batch: Columns | None, known: Account) -> None:
        """Writes one piece, then how far the job is."""
        if batch:
            account.columns = list(batch)
            with self._writer(self._pieces / f"{account.pieces:06d}", account.columns) as writer:
                writer.write(batch)
            account.pieces += 1
            account.written += writer.rows
        for name in ("read", "rejected", "reasons", "position", "bad_bytes", "text"):
            setattr(account, name, getattr(known, name))
        write_json(self._pieces / PROGRESS, {"key": self._key, "account": vars(account)})

    def _writer(self, path: Path, columns: Sequence[str]) -> TableWriter:
        if self.form == "npy":
            return NpzWriter(path, columns)
        data = self._data
        return open_writer(
            path, columns, overwrite=True, float_format=self._float_format, escape=data.escape, form=self.form
        )

    def _write_empty(self, account: Account, columns: Sequence[str] | None) -> None:
        if columns is None:
            raise DataError(
                f"no usable row in {self._data.input_table}",
                received=f"{account.read} rows read, {account.rejected} rejected",
                fix="check the path, the delimiter and the schema",
            )
        account.columns = list(columns)
        if self.form != "npy":
            self._writer(self._pieces / "000000", columns).close()
            account.pieces = 1

    def _join(self, account: Account) -> None:
        pieces = [self._pieces / f"{number:06d}" for number in range(account.pieces)]
        # A single piece is renamed; it is gone when the job was killed right behind that.
        if pieces != [self._pieces / "000000"] or pieces[0].exists():
            if self.workers == 1:
                self._finish(pieces, self.path, account.columns)
            else:
                join_tables(pieces, self.path, self.form, account.columns)
        if self.workers > 1:
            write_json(f"{self.path}.json", {"key": self._key, "account": vars(account)})
        shutil.rmtree(self._pieces)

    def _finish(self, sources: Sequence[Path], target: Path, columns: Sequence[str]) -> None:
        """Joins tables into the output, in the form that its name asks for."""
        if self._ending:
            write_rows(self._ending, sources, target)
        else:
            join_tables(sources, target, self.form, columns)


class _Meter:
    """Shows how many rows of a share are done.

    Args:
        name: What is going on.
        log_format: Of the log.
        start: Number of the first row of the share.
        position: Number of the row that this process begins at.
        end: Number of the row behind the share.
    """

    def __init__(self, name: str, log_format: Literal["text", "json"], start: int, position: int, end: int) -> None:
        done, total = position - start, end - start
        self._progress = Progress(name, total, done=done, log_format=log_format, min_interval_s=LINE_SECONDS)
        self._start, self._begin, self._chunk = start, done, (done, done)
        self._since = time.monotonic()

    def __enter__(self) -> _Meter:
        self._progress.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.__exit__(*error)

    def chunk(self, position: int) -> None:
        """Goes on with a chunk that ends before row number `position`."""
        self._chunk = (self._chunk[1], position - self._start)

    def show(self, share: float) -> None:
        """Shows that so much of the chunk, 0 to 1, is done."""
        first, last = self._chunk
        done = round(first + share * (last - first))
        if done > self._progress.done:
            seconds = max(time.monotonic() - self._since, 1e-9)
            self._progress.update(done, rows_per_s=(done - self._begin) / seconds)


def job_key(mode: str, config: Any, model: Path | None = None) -> dict[str, Any]:
    """Returns what the rows of a job depend on: its settings and its model.

    Args:
        mode: Kind of job.
        config: Its configuration.
        model: Checkpoint, export or model folder.
    """
    settings = config.model_dump(mode="json", exclude={"distribution"})
    for name in ("overwrite", "resume", "log_format", "dry_run"):
        settings["runtime"].pop(name)
    settings["data"].pop("merge")
    files = [] if model is None else [[str(path), _stamp(path)] for path in _files(model)]
    return {"mode": mode, "settings": settings, "model": files}


def table_form(name: str) -> str:
    """Returns the form of an output by its name; a name that ends in `/` is a folder of `.npy` files.

    Raises:
        ConfigError: The name ends in `.npy`.
    """
    if name.rstrip("/").lower().endswith((".npy", ".npz")):
        stem = name.rstrip("/").rpartition(".")[0]
        raise ConfigError("arrays are written into a folder, a file per column", received=name, fix=f"write {stem}/")
    return "npy" if name.endswith("/") else form_of(name)


def _total(accounts: Sequence[Account], columns: list[str]) -> Account:
    reasons: Counter[str] = Counter()
    text: Counter[str] = Counter()
    for account in accounts:
        reasons.update(account.reasons)
        text.update(account.text)
    sums = {name: sum(getattr(account, name) for account in accounts) for name in ("written", "read", "rejected")}
    return Account(**sums, reasons=dict(reasons), columns=columns, text=dict(text))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(item for item in path.rglob("*") if item.is_file())
    return sorted(path.parent.glob(f"{path.name}*"))


def _stamp(path: Path) -> list[Any]:
    if path.is_dir():  # of pictures: its own time says nothing of theirs
        inside = json.dumps([[str(file.relative_to(path)), _stamp(file)] for file in _files(path)])
        return [hashlib.sha256(inside.encode("utf-8", "surrogateescape")).hexdigest()]
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
