"""The hub's client as we use it: lists a commit, brings checked files into its cache, and says what went wrong.

The package `huggingface_hub` is imported when something is downloaded, and by nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easytransfer.errors import EasyTransferError, ModelError, ResourceError
from easytransfer.installing import install_line
from easytransfer.presets import hub
from easytransfer.presets.download import check_address
from easytransfer.presets.meter import Meter
from easytransfer.run.atomic import write_text
from easytransfer.run.secrets import without_secrets

_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_TIMEOUT_SECONDS = 60
_MOST_REASON = 300
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_AGAIN = "run the same command again: files that have arrived whole are kept"


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub announces it.

    Attributes:
        name: Name in the repository.
        size: Bytes.
        digest: SHA-256 of a large file, Git's SHA-1 of others, in hexadecimal digits.
    """

    name: str
    size: int
    digest: str


class Repository:
    """A commit of a repository: its files, and their way into the cache.

    Args:
        model: The repository and its revision.

    Attributes:
        commit: What the revision stands for, 40 hexadecimal digits.
        files: Files at its root, by name.

    Raises:
        ModelError: The network is switched off, the client is not installed, the repository or revision is not there or
            not for us.
    """

    def __init__(self, model: hub.HubId) -> None:
        self.model = model
        self._client = _client(model)
        with _told(model):
            info = self._client.HfApi(endpoint=endpoint()).model_info(
                model.id, revision=model.revision, files_metadata=True, timeout=_TIMEOUT_SECONDS
            )
            self.commit = str(info.sha)
            self.files = {
                entry.rfilename: RemoteFile(
                    entry.rfilename, entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id
                )
                for entry in info.siblings or ()
                if "/" not in entry.rfilename
            }
        if not hub.COMMIT.fullmatch(self.commit):
            raise ModelError(f"{endpoint()} does not say which commit {model} is", received=self.commit[:50])

    def take(self, names: Sequence[str], most: int) -> Path:
        """Downloads files, one after the other, and compares them with their checksums.

        Args:
            names: Files that the repository has.
            most: Bytes that they may have together.

        Returns:
            The folder of the commit.

        Raises:
            ModelError: They are larger, have no checksum or another one, or do not arrive.
            ResourceError: The cache cannot be written or has no room for them.
        """
        files = [self.files[name] for name in names]
        _check_listing(self.model, files, most)
        folder = hub.repository_folder(self.model) / "snapshots" / self.commit
        _check_space([file for file in files if not (folder / file.name).exists()])
        arrived, total = 0, sum(file.size for file in files)
        with Meter(self.model.id) as meter:
            for file in files:
                before = arrived
                path = self._download(file, lambda size, before=before: meter.update(before + size, total))
                self._check(path, file)
                arrived += file.size
        return folder

    def note_revision(self) -> None:
        """Lets the branch or tag stand for this commit in the cache; to be called when all files are there."""
        if self.model.revision != self.commit:
            place = hub.reference(self.model)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, self.commit)

    def _download(self, file: RemoteFile, progress: Callable[[int], None]) -> Path:
        with _told(self.model):
            place = self._client.hf_hub_download(
                self.model.id,
                file.name,
                revision=self.commit,
                cache_dir=hub.cache_folder(),
                endpoint=endpoint(),
                tqdm_class=_bar(self._client, file, progress),
            )
            return Path(place)

    def _check(self, path: Path, file: RemoteFile) -> None:
        """Compares a file with what the hub announced; one that differs is deleted."""
        actual = hub.digest(path, file.digest)
        if actual == file.digest:
            return
        if path.is_symlink():
            (path.parent / os.readlink(path)).unlink(missing_ok=True)
        path.unlink()
        raise ModelError(
            f"{file.name} of {self.model} arrived with another checksum",
            received=actual,
            accepted=file.digest,
            fix="the file was deleted; run the same command again",
        )


def _client(model: hub.HubId) -> Any:
    """Returns the hub's client, when it may be used."""
    for variable in _OFFLINE_VARIABLES:
        if os.environ.get(variable, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ModelError(
                f"fetching {model} needs the network, which {variable} switches off",
                received=f"{variable}={os.environ[variable]}",
                fix=f"unset {variable}, or name a folder with a copy of the model",
            )
    try:
        import huggingface_hub
    except ImportError:
        raise ModelError(
            f"{model} is downloaded with the package huggingface_hub, which is not installed",
            fix=f"install it with: {install_line('hub')}",
        ) from None
    check_address(endpoint())
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_hide_secrets)
    return huggingface_hub


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Lets a message of the client pass without the signatures that addresses of large files hold."""
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


def endpoint() -> str:
    """Returns the address of the hub, or of the mirror that HF_ENDPOINT names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def _check_listing(model: hub.HubId, files: Sequence[RemoteFile], most: int) -> None:
    """Checks that files have a size and a checksum, and together at most `most` bytes."""
    for file in files:
        if not isinstance(file.size, int) or file.size < 0 or not hub.DIGEST.fullmatch(str(file.digest)):
            raise ModelError(
                f"{endpoint()} does not say size and checksum of {file.name} of {model}",
                received=f"{file.size}, {file.digest}",
                fix="HF_ENDPOINT must name a hub, or a mirror that answers like one",
            )
    if (total := sum(file.size for file in files)) > most:
        names = f"{files[0].name} and {len(files) - 1} more files" if len(files) > 1 else files[0].name
        raise ModelError(
            f"{names} of {model} are larger than of any model that can be loaded",
            received=f"{total:,} bytes",
            accepted=f"at most {most:,} bytes",
        )


def _check_space(files: Sequence[RemoteFile]) -> None:
    needed, place = sum(file.size for file in files), hub.cache_folder()
    with contextlib.suppress(OSError):  # what cannot be made is told when something is written there
        place.mkdir(parents=True, exist_ok=True)
        if needed > (free := shutil.disk_usage(place).free):
            raise ResourceError(
                f"{place} has no room for the model",
                received=f"{free:,} bytes free",
                accepted=f"at least {needed:,} bytes",
                fix="free some space, or let HF_HOME name another disk",
            )


def _bar(client: Any, file: RemoteFile, progress: Callable[[int], None]) -> type:
    """Returns what the hub's client calls for every piece: our progress line, and the bound on what it writes."""

    class Bar(client.utils.tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})
            self.received = 0

        def update(self, n: float | None = 1) -> None:
            self.received += int(n or 0)
            if self.received > file.size:
                raise ModelError(f"{file.name} is longer than the hub had said", accepted=f"{file.size:,} bytes")
            progress(self.received)

        # With these two the client counts the bytes of its other way of transfer (Xet) only once.
        def update_transfer(self, n: float | None = 1) -> None:
            pass

        def set_transfer_postfix_str(self, *arguments: Any, **options: Any) -> None:
            pass

    return Bar


@contextlib.contextmanager
def _told(model: hub.HubId) -> Iterator[None]:
    """Turns what the hub's client raises into our errors: no addresses with queries, no headers, no tokens."""
    try:
        yield
    except EasyTransferError:
        raise
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            place = hub.cache_folder()
            raise ResourceError(
                f"cannot write to {place}: {error.strerror}", fix="free some space, or set HF_HOME"
            ) from None
        raise _refused(model, error) or _failed(model, error) from None
    except Exception as error:  # also of the HTTP library below it, and for answers that are no hub's
        raise _refused(model, error) or _failed(model, error) from None


def _refused(model: hub.HubId, error: BaseException) -> ModelError | None:
    """Returns the error for what the hub answered, None when it did not answer."""
    names = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{without_secrets(endpoint())}/{model.id}"
    if "GatedRepoError" in names:
        return ModelError(
            f"{model} is gated: its owner gives access on request",
            fix=f"ask for it at {page}, then set HF_TOKEN to a token of that account (or `hf auth login`)",
        )
    if "RevisionNotFoundError" in names:
        fix = f"{page}/tree/main lists branches and tags; without @ it is {hub.MAIN}"
        return ModelError(f"{model.id} has no revision {model.revision}", fix=fix)
    if "RepositoryNotFoundError" in names:
        return ModelError(
            f"there is no repository {model.id} at {without_secrets(endpoint())}, or it is private",
            fix="check owner and name; for a private one set HF_TOKEN to a token that may read it",
        )
    if "DisabledRepoError" in names:
        return ModelError(f"the hub has closed {model.id}", fix="choose another model")
    if status in (401, 403):
        return ModelError(
            f"{without_secrets(endpoint())} refuses to give {model} (HTTP {status})",
            fix="HF_TOKEN, or the token of `hf auth login`, is not valid any more or may not read it",
        )
    if status is not None:
        return ModelError(f"{without_secrets(endpoint())} answers HTTP {status} for {model}", fix=_AGAIN)
    return None


def _failed(model: hub.HubId, error: BaseException) -> ModelError:
    cause = error.__cause__ or error
    text = without_secrets(" ".join(str(cause).split()))[:_MOST_REASON]
    return ModelError(f"download of {model} failed: {text or type(cause).__name__}", fix=_AGAIN)
