"""A hub of models and data sets on this machine. It serves the HTTP calls that huggingface_hub makes for a download.

Repositories are folders. As on the hub, a file of more than LARGE bytes is known by its SHA-256, any other by its git
hash. A test sets faults on the `LocalHub` while it runs.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

LARGE = 10_000


@dataclass(frozen=True)
class HubFile:
    path: Path

    @cached_property
    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def is_large(self) -> bool:
        return len(self.content) > LARGE

    @cached_property
    def hash(self) -> str:
        if self.is_large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sibling(self) -> dict[str, Any]:
        """How a list of files describes it."""
        lfs = {"lfs": {"sha256": self.hash, "size": len(self.content), "pointerSize": 130}} if self.is_large else {}
        return {"blobId": hashlib.sha1(self.content).hexdigest() if self.is_large else self.hash, **lfs}

    def entry(self, name: str) -> dict[str, Any]:
        lfs = {"lfs": {"oid": self.hash, "size": len(self.content), "pointerSize": 130}} if self.is_large else {}
        return {"type": "file", "path": name, "size": len(self.content), "oid": self.hash, **lfs}


@dataclass
class LocalHub:
    """Repositories by name, and the faults of their downloads."""

    repos: dict[str, Path] = field(default_factory=dict)
    revisions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # repository: other names of its one commit
    break_off: dict[str, int] = field(default_factory=dict)  # file name: bytes after which its next download ends
    stall: dict[str, int] = field(default_factory=dict)  # file name: bytes after which it waits for `resume`
    garble: dict[str, int] = field(default_factory=dict)  # file name: number of downloads with damaged content
    requests: list[str] = field(default_factory=list)  # "GET path", and the range if the request has one
    stalled: threading.Event = field(default_factory=threading.Event)
    resume: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def commit(self, repo: str) -> str:
        return hashlib.sha1(repo.encode()).hexdigest()

    def files(self, repo: str) -> dict[str, HubFile]:
        root = self.repos[repo]
        return {path.relative_to(root).as_posix(): HubFile(path) for path in root.rglob("*") if path.is_file()}


@contextmanager
def run_hub(hub: LocalHub) -> Iterator[LocalHub]:
    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.served.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".rstrip())
        parts = path.strip("/").split("/")
        if parts[:1] == ["datasets"]:
            parts = parts[1:]
        if parts[:2] in (["api", "models"], ["api", "datasets"]):
            repo, rest = "/".join(parts[2:4]), parts[4:]
        else:
            repo, rest = "/".join(parts[:2]), parts[2:]
        if repo not in self.served.repos:
            return self._fail("RepoNotFound")
        commit = self.served.commit(repo)
        if len(rest) > 1 and rest[1] not in ("main", commit, *self.served.revisions.get(repo, ())):
            return self._fail("RevisionNotFound")
        files = self.served.files(repo)
        if rest[:1] == ["tree"]:
            recursive = parse_qs(urlparse(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            return self._json(_list(files, "/".join(rest[2:]), recursive))
        if rest[:1] != ["resolve"]:
            siblings = [{"rfilename": name, **file.sibling} for name, file in files.items()]
            return self._json({"id": repo, "sha": commit, "siblings": siblings})
        name = "/".join(rest[2:])
        if name not in files:
            return self._fail("EntryNotFound")
        return self._file(name, files[name], commit)

    def _file(self, name: str, file: HubFile, commit: str) -> None:
        content = file.content
        if self.command == "GET" and self.served.garble.get(name, 0):
            self.served.garble[name] -= 1
            content = bytes(255 - byte for byte in content)
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{file.hash}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            stalls = self.served.stall.pop(name, None)
            ends = stalls or self.served.break_off.pop(name, None)
            self.wfile.write(body[:ends])
            if stalls:
                self.served.stalled.set()
                self.served.resume.wait()
            self.close_connection = ends is not None

    def _json(self, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _list(files: dict[str, HubFile], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """The entries of a folder: files and, unless everything below is asked for, the folders in it."""
    prefix = f"{folder}/" if folder else ""
    below = {name: file for name, file in files.items() if name.startswith(prefix)}
    inner = {name.removeprefix(prefix).partition("/")[0] for name in below if "/" in name.removeprefix(prefix)}
    entries = [file.entry(name) for name, file in below.items() if recursive or "/" not in name.removeprefix(prefix)]
    if recursive:
        return entries
    return [*entries, *({"type": "directory", "path": f"{prefix}{name}", "oid": "0" * 40, "size": 0} for name in inner)]
