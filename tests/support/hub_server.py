"""A model hub on this machine: folders served with the hub's requests, headers and refusals, and failures on demand.

It answers what huggingface_hub asks for when a model is loaded by name: the metadata of a repository, the list of its
files, each file's headers, each file from any byte on. Weights are redirected to a second host, as large files are.
"""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

BLOCK = 65536


@dataclass(frozen=True)
class Fault:
    """A fault in place of a file: a status, or an end (or a silence) after `after` bytes."""

    status: int = 0
    after: int = 0
    stall: bool = False


@dataclass(frozen=True)
class Repository:
    """A folder as it is now; gated: for its `members`' tokens; captured: a network's login page answers instead."""

    folder: Path
    gated: bool = False
    members: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # files that are listed but cannot be had
    captured: bool = False

    @cached_property
    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}

    @cached_property
    def commit(self) -> str:
        return hashlib.sha1(b"".join(name.encode() + data for name, data in self.files.items())).hexdigest()


@dataclass
class Hub:
    """The served repositories, the valid tokens, the planned faults, and what was asked and sent."""

    repositories: dict[str, Repository]
    tokens: tuple[str, ...] = ()
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # of each "lab/model/model.safetensors"
    url: str = ""
    requests: list[str] = field(default_factory=list)  # "GET /lab/model/resolve/main/config.json"
    ranges: dict[str, str] = field(default_factory=dict)  # the last one asked of each file, "bytes=1000-"
    sent: Counter[str] = field(default_factory=Counter)  # bytes of each file
    leaked: list[str] = field(default_factory=list)  # what was told to the second host about who asks
    stalled: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve until the block ends; stalled answers end with it."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            hub.closing.set()
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        match path.strip("/").split("/"):
            case [""]:
                self.reply(200, b"hub")
            case ["api", "models", owner, name]:
                self.describe(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                self.describe(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision, *folder]:
                self.list_files(f"{owner}/{name}", revision, "/".join(folder))
            case ["cdn", owner, name, file]:
                self.hub.leaked += [self.token()] if self.token() else []
                self.send(f"{owner}/{name}/{file}", self.hub.repositories[f"{owner}/{name}"].files[file], {})
            case [owner, name, "resolve", revision, *parts]:
                self.resolve(f"{owner}/{name}", revision, "/".join(parts))
            case _:
                self.reply(404)

    do_GET = do_HEAD = answer

    def find(self, name: str, revision: str) -> Repository | None:
        """The repository, or None after the refusal: the hub does not tell strangers what exists."""
        repository, token = self.hub.repositories.get(name), self.token()
        if token and token not in self.hub.tokens:
            self.refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None and not token:
            self.refuse(401, "", "Invalid username or password.")
        elif repository is None:
            self.refuse(404, "RepoNotFound", "Repository not found")
        elif repository.captured:
            self.reply(200, b"<html>Please log in to this network</html>")
        elif revision not in ("main", repository.commit):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        else:
            return repository
        return None

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def describe(self, name: str, revision: str) -> None:
        if repository := self.find(name, revision):
            about = {"id": name, "sha": repository.commit, "private": False, "tags": []}
            about["gated"] = "manual" if repository.gated else False
            about["siblings"] = [{"rfilename": file} for file in repository.files]
            self.reply(200, json.dumps(about).encode())

    def list_files(self, name: str, revision: str, folder: str) -> None:
        if (repository := self.find(name, revision)) and folder:
            self.refuse(404, "EntryNotFound", f"{folder} does not exist on {revision!r}")
        elif repository:
            files = [{"type": "file", "path": file, "size": len(data)} for file, data in repository.files.items()]
            self.reply(200, json.dumps([file | {"oid": "0" * 40} for file in files]).encode())

    def resolve(self, name: str, revision: str, file: str) -> None:
        """A small file, or where a large one is."""
        if not (repository := self.find(name, revision)):
            return
        commit, data, path = {"X-Repo-Commit": repository.commit}, repository.files.get(file), f"{name}/{file}"
        if repository.gated and self.token() not in repository.members:
            self.refuse(403 if self.token() else 401, "GatedRepo", f"Access to model {name} is restricted.")
        elif data is None or file in repository.absent:
            self.refuse(404, "EntryNotFound", "Entry not found", commit)
        elif (faults := self.hub.faults.get(path)) and faults[0].status:
            self.reply(faults.pop(0).status, headers={"Retry-After": "0"})
        elif is_large(file):
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            second_host = self.hub.url.replace("127.0.0.1", "localhost")
            self.reply(302, headers=commit | linked | {"Location": f"{second_host}/cdn/{path}"})
        else:
            self.send(path, data, commit | {"ETag": f'"{sha256(data)}"'})

    def send(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        """Send the bytes from the asked one on, as far as no fault ends them."""
        start = 0
        if asked := self.headers.get("Range"):
            self.hub.ranges[path] = asked
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            headers = headers | {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        self.start(206 if asked else 200, len(data) - start, headers)
        if self.command == "HEAD":
            return
        faults = self.hub.faults.get(path)
        fault = faults.pop(0) if faults else None
        end = start + fault.after if fault else len(data)
        for position in range(start, end, BLOCK):
            self.hub.sent[path] += self.wfile.write(data[position : min(position + BLOCK, end)])
        if fault and fault.stall:
            self.hub.stalled.set()
            self.hub.closing.wait()
        self.close_connection = fault is not None

    def refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        reasons = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply(status, message.encode(), reasons | (headers or {}))

    def reply(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.start(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_large(file: str) -> bool:
    """True if the hub would store the file outside git."""
    return file.endswith((".safetensors", ".bin"))
