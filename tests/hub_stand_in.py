"""A stand-in of the Hugging Face hub on the loopback address, which answers the requests that its client makes.

As at the hub: `/api/models/<id>/revision/<revision>?blobs=true` lists a commit; HEAD of `/<id>/resolve/<commit>/<file>`
says commit, checksum and size; small files come from there, large ones from another server that must see no token.
"""

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from local_server import local_server

_LARGE = (".safetensors", ".bin", ".h5", ".msgpack")


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """Repositories, what goes wrong with them, and what was asked for.

    Attributes:
        files: Content by file, by commit, by repository.
        revisions: Commit by branch or tag, by repository.
        tokens: Tokens that may read a gated or private repository.
        gated: Repositories whose listing anyone sees and whose files only `tokens` see.
        private: Repositories that do not exist for others.
        cut: Answers of the server of large files that stop after half of what they promise.
        wrong: Files that arrive with another content of the same size.
        longer: Files that arrive longer than announced.
        stalled: Files of which half arrives and the rest when `go_on` is set.
        refuse: HTTP status of every answer, when set.
        asked: Method, path and headers of every request.
    """

    files: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    cut: int = 0
    wrong: set[str] = field(default_factory=set)
    longer: set[str] = field(default_factory=set)
    stalled: set[str] = field(default_factory=set)
    go_on: threading.Event = field(default_factory=threading.Event)
    refuse: int | None = None
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    address: str = ""
    large_address: str = ""

    def add(self, name: str, files: dict[str, bytes], revision: str = "main") -> str:
        """Adds a commit that a branch or tag then stands for; returns it."""
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        self.files.setdefault(name, {})[commit] = files
        self.revisions.setdefault(name, {})[revision] = commit
        return commit

    def paths(self, method: str) -> list[str]:
        return [path for made, path, _ in self.asked if made == method]

    def answer(self, handler) -> None:
        self.asked.append((handler.command, handler.path, dict(handler.headers)))
        if self.refuse:
            return _send(handler, self.refuse)
        path = unquote(urlsplit(handler.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._listing(handler, *match.groups())
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            return self._file(handler, *match.groups())
        return _send(handler, 404)

    def _may(self, handler) -> bool:
        return handler.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def _listing(self, handler, name: str, revision: str) -> None:
        if name not in self.files or (name in self.private and not self._may(handler)):
            # The hub tells strangers no difference between what is private and what is not there.
            return _send(handler, 404 if handler.headers.get("Authorization") else 401, X_Error_Code="RepoNotFound")
        commit = self.revisions[name].get(revision, revision)
        if commit not in self.files[name]:
            return _send(handler, 404, X_Error_Code="RevisionNotFound")
        blobs = parse_qs(urlsplit(handler.path).query).get("blobs") == ["true"]
        entries = [
            {"rfilename": file, **(_facts(file, content) if blobs else {})}
            for file, content in self.files[name][commit].items()
        ]
        body = {"id": name, "modelId": name, "sha": commit, "private": False, "siblings": entries, "tags": []}
        return _send(handler, 200, json.dumps(body).encode(), Content_Type="application/json")

    def _file(self, handler, name: str, commit: str, file: str) -> None:
        if name in self.gated and not self._may(handler):
            status = 403 if handler.headers.get("Authorization") else 401
            return _send(handler, status, X_Error_Code="GatedRepo")
        content = self.files[name][commit].get(file)
        if content is None:
            return _send(handler, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        if not file.endswith(_LARGE):
            sent = self._sent(file, content)
            return _send(handler, 200, sent, ETag=f'"{git_sha1(content)}"', X_Repo_Commit=commit)
        headers = {
            "X_Repo_Commit": commit,
            "X_Linked_Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X_Linked_Size": str(len(content)),
            "Location": f"{self.large_address}/{name}/{commit}/{file}?Signature=very-secret",
        }
        return _send(handler, 302, **headers)

    def _sent(self, file: str, content: bytes) -> bytes:
        if file in self.wrong:
            content = bytes(255 - value for value in content)
        return content + (b"more" * 100 if file in self.longer else b"")

    def answer_large(self, handler) -> None:
        """Answers as the server of large files, which knows ranges."""
        self.asked.append((handler.command, handler.path, dict(handler.headers)))
        owner, name, commit, file = urlsplit(handler.path).path[1:].split("/")
        content = self._sent(file, self.files[f"{owner}/{name}"][commit][file])
        begin = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(begin[1]) if begin else 0
        extra = {"Content_Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if begin else {}
        if file in self.stalled:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2])
            self.go_on.wait()
            return
        cut = self.cut > 0
        self.cut -= cut
        _send(handler, 206 if begin else 200, content[start:], cut=cut, **extra)


def _facts(file: str, content: bytes) -> dict:
    facts = {"size": len(content), "blobId": git_sha1(content)}
    if file.endswith(_LARGE):
        facts["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
    return facts


def _send(handler, status: int, body: bytes = b"", *, cut: bool = False, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body[: len(body) // 2] if cut else body)
    handler.close_connection = True


@contextlib.contextmanager
def hub_stand_in() -> Iterator[Hub]:
    """Runs a hub without repositories for as long as the block runs."""
    hub = Hub()
    with local_server(hub.answer) as hub.address, local_server(hub.answer_large) as hub.large_address:
        try:
            yield hub
        finally:
            hub.go_on.set()
