"""A search service on this machine: it answers as Google's Custom Search JSON API does, and fails on demand."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

KEY, ENGINE = "a-secret-key", "an-engine"


@dataclass(frozen=True)
class Fault:
    """A fault in place of an answer: a status, a body, a broken connection, or silence until the end."""

    status: int = 200
    body: str | None = None
    cut: bool = False
    stall: bool = False


@dataclass
class SearchService:
    """The results for each query, the planned faults in their order, and the queries received."""

    hits: dict[str, list[dict[str, str]]]
    faults: list[Fault] = field(default_factory=list)
    url: str = ""
    asked: list[str] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)  # hits that each request wanted
    closing: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve(service: SearchService) -> Iterator[SearchService]:
    """Serve until the block ends; silences end with it."""
    handler = type("SearchHandler", (Handler,), {"service": service})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        service.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield service
        finally:
            service.closing.set()
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    service: SearchService

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.service.asked.append(asked.get("q", ""))
        self.service.pages.append(int(asked.get("num", 0)))
        fault = self.service.faults.pop(0) if self.service.faults else None
        if fault and fault.stall:
            self.service.closing.wait()
        elif fault and fault.cut:
            self.start(200, 1000)
        elif fault:
            self.reply(fault.status, self.error(fault.status) if fault.body is None else fault.body)
        elif address.path != "/customsearch/v1" or asked.get("cx") != ENGINE:
            self.reply(404, self.error(404))
        elif asked.get("key") != KEY:
            self.reply(400, self.error(400))
        else:
            items = self.service.hits.get(asked["q"], [])[: int(asked["num"])]
            self.reply(200, json.dumps({"kind": "customsearch#search"} | ({"items": items} if items else {})))

    def error(self, status: int) -> str:
        return json.dumps({"error": {"code": status, "message": f"refused with {status}", "errors": []}})

    def reply(self, status: int, body: str) -> None:
        data = body.encode()
        self.start(status, len(data))
        self.wfile.write(data)

    def start(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(length))
        self.end_headers()
