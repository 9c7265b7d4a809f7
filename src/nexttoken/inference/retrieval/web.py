"""Web search by Google's Custom Search JSON API: a failed query has no hits, and the run goes on."""

import http.client
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from nexttoken.data.files import hash_text, write_json
from nexttoken.data.packages import require
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.recorded import Record
from nexttoken.tasks.surrogates import replaced
from nexttoken.types import Passage

KEY, ENGINE = "GOOGLE_API_KEY", "GOOGLE_SEARCH_ENGINE_ID"
ENDPOINT = r"https://([a-z0-9-]+\.)+googleapis\.com/?|http://(127\.0\.0\.1|localhost)(:[0-9]+)?/?"
MAX_HITS = 10  # of one query in the API
QUERY_CHARACTERS = 500  # Google reads about 32 words; a longer address would be refused
TEMPORARY_STATUSES = (408, 429, 500, 502, 503, 504)


class TemporaryError(ConnectionError):
    """A failure that a retry may overcome."""


@dataclass
class GoogleSearch:
    """Titles and snippets of Google's hits, cached in `cache_dir`.

    A query that fails, after `retries` further tries and `total_seconds` at most, has no hits and is counted in
    `failed`; after `failures_in_a_row` of them no more are sent. Raises UserError at once when the key, the engine or
    the package is missing. The key is read from $GOOGLE_API_KEY only, and neither saved nor shown.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"passages"})

    engine_id: str | None = None  # None: $GOOGLE_SEARCH_ENGINE_ID
    num_hits: int = 5
    timeout_seconds: float = 10.0  # without an answer
    retries: int = 2
    total_seconds: float = 30.0  # of one query
    backoff_seconds: float = 1.0  # before the first retry; doubled before each further one
    failures_in_a_row: int = 3
    cache_dir: str = "output/web-cache"
    endpoint: str = "https://customsearch.googleapis.com"
    _engine: str = field(default="", init=False, repr=False, compare=False)
    failed: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _num_failures: int = field(default=0, init=False, repr=False, compare=False)  # since the last success

    def __post_init__(self) -> None:
        require("retriever=web", "googleapiclient")
        if not 1 <= self.num_hits <= MAX_HITS:
            raise UserError(f"retriever.num_hits={self.num_hits}, expected 1 to {MAX_HITS}, a page of Google's hits")
        if not re.fullmatch(ENDPOINT, self.endpoint):
            what = f"retriever.endpoint={self.endpoint!r} is refused, as it would be sent your key"
            raise UserError(f"{what}: expected an address of https://*.googleapis.com, or of this machine")
        self._engine = self.engine_id or os.environ.get(ENGINE, "")
        for name, value in ((KEY, os.environ.get(KEY)), (ENGINE, self._engine)):
            if not value:
                raise UserError(f"retriever=web needs the environment variable {name} (docs/retrieval.md)")

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        return [self._find(query) if query.strip() else [] for query in queries]

    def _find(self, query: str) -> list[Passage]:
        key = hash_text(json.dumps([self._engine, self.num_hits, query]))[:32]
        path = Path(self.cache_dir) / f"{key}.json"
        with suppress(OSError, ValueError):  # no file, or a broken one
            return Record.model_validate_json(path.read_bytes()).found
        if self._num_failures >= self.failures_in_a_row:
            self.failed.add(query)
            return []
        try:
            hits = self._request_with_retries(query)
        except ConnectionError as error:
            self.failed.add(query)
            self._num_failures += 1
            if self._num_failures == self.failures_in_a_row:
                print(
                    f"web search: {self._num_failures} queries in a row failed, the last with {error}; no more are sent"
                    " in this run, and questions are answered without passages",
                    file=sys.stderr,
                )
            return []
        self._num_failures = 0
        self.failed.discard(query)
        answer = {"query": query, "passages": [asdict(hit) for hit in hits]}
        with suppress(OSError):  # a full disk: the next run sends the query again
            write_json(answer, path)
        return hits

    def _request_with_retries(self, query: str) -> list[Passage]:
        """Send a query until it is answered or time is over. Raises ConnectionError with a reason without secrets."""
        end, wait, retries = time.monotonic() + self.total_seconds, self.backoff_seconds, self.retries
        while True:
            try:
                return self._request(query, max(min(self.timeout_seconds, end - time.monotonic()), 0.01))
            except TemporaryError:
                if not retries or time.monotonic() + wait >= end:
                    raise
            time.sleep(wait)
            wait, retries = 2 * wait, retries - 1

    def _request(self, query: str, seconds: float) -> list[Passage]:
        """One request. An error's text is not passed on: it contains the address with the key."""
        import httplib2
        from googleapiclient.discovery import build
        from googleapiclient.errors import HttpError

        logging.getLogger("googleapiclient").setLevel(logging.ERROR)  # lower levels write the key
        try:
            with build(
                "customsearch",
                "v1",
                http=httplib2.Http(timeout=seconds),
                developerKey=os.environ.get(KEY),
                static_discovery=True,
                client_options={"api_endpoint": self.endpoint},
            ) as service:
                request = service.cse().list(q=query[:QUERY_CHARACTERS], cx=self._engine, num=self.num_hits)
                return [_passage(item, rank) for rank, item in enumerate(request.execute().get("items", []), start=1)]
        except HttpError as error:
            kind = TemporaryError if error.status_code in TEMPORARY_STATUSES else ConnectionError
            raise kind(f"HTTP status {error.status_code}") from None
        except (OSError, httplib2.HttpLib2Error, http.client.HTTPException) as error:
            raise TemporaryError(type(error).__name__) from None
        except (ValueError, TypeError, KeyError, AttributeError):  # a login page, or another service
            raise ConnectionError("an answer that is not the API's JSON") from None


def _passage(item: dict[str, Any], rank: int) -> Passage:
    """A hit as one text. Google gives no scores: the first hit gets 1, the second 1/2, and so on."""
    lines = (" ".join(replaced(item.get(part, "")).split()) for part in ("title", "snippet"))
    return Passage("\n".join(filter(None, lines)), 1 / rank, item.get("link", ""))
