"""Web search against a service on this machine: answers, every kind of failure, the cache, and the secret key."""

import logging
import socket
import time
from pathlib import Path

import pytest

from nexttoken.errors import UserError
from nexttoken.inference.retrieval.recorded import Recorded, Recording
from nexttoken.inference.retrieval.search import Search
from nexttoken.inference.retrieval.web import GoogleSearch
from nexttoken.types import Example, Passage
from support.search_server import ENGINE, KEY, Fault, SearchService, serve

pytest.importorskip("googleapiclient", reason="needs the extra web")

HITS = {
    "highest peak": [
        {"title": "Mount Fuji", "link": "https://example.org/fuji", "snippet": "It is 3,776\xa0m\nhigh."},
        {"title": "Kita", "link": "https://example.org/kita"},
    ],
    "富士山": [{"title": "富士山", "link": "https://example.jp/fuji", "snippet": "日本で最も高い山。"}],
}
FUJI = Passage("Mount Fuji\nIt is 3,776 m high.", 1.0, "https://example.org/fuji")


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("GOOGLE_API_KEY", KEY)
    monkeypatch.setenv("GOOGLE_SEARCH_ENGINE_ID", ENGINE)


@pytest.fixture
def service():
    with serve(SearchService(HITS)) as served:
        yield served


@pytest.fixture
def google(service, tmp_path):
    return make(service.url, tmp_path)


def make(url: str, folder: Path, **settings) -> GoogleSearch:
    quick = {"timeout_seconds": 0.3, "total_seconds": 3.0, "backoff_seconds": 0.02, "cache_dir": str(folder / "cache")}
    return GoogleSearch(endpoint=url, **(quick | settings))


def test_hits_are_titles_and_snippets_in_googles_order(google, service):
    first, japanese, nothing, blank = google.search(["highest peak", "富士山", "no such thing", " "])
    assert first == [FUJI, Passage("Kita", 0.5, "https://example.org/kita")]
    assert [passage.text for passage in japanese] == ["富士山\n日本で最も高い山。"]
    assert nothing == blank == []
    assert len(google.failed) == 0
    assert service.asked == ["highest peak", "富士山", "no such thing"]
    assert set(service.pages) == {5}


def test_answers_are_kept_and_found_without_network(service, tmp_path):
    found = make(service.url, tmp_path).search(["highest peak", "no such thing"])
    without = make(closed_port(), tmp_path)
    assert without.search(["highest peak", "no such thing"]) == found
    assert (len(without.failed), len(service.asked)) == (0, 2)
    assert make(service.url, tmp_path, num_hits=1).search(["highest peak"]) == [[FUJI]]  # another question, asked again


def test_a_broken_cache_file_is_asked_for_again(google, service, tmp_path):
    google.search(["highest peak"])
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_text('{"passages": [{')
    assert google.search(["highest peak"])[0][0] == FUJI
    assert len(service.asked) == 2


@pytest.mark.parametrize(
    "fault", [Fault(429), Fault(500), Fault(503, "<html>"), Fault(cut=True), Fault(stall=True)], ids=str
)
def test_what_passes_is_asked_again(google, service, fault):
    service.faults += [fault]
    assert google.search(["highest peak"])[0][0] == FUJI
    assert (len(google.failed), len(service.asked)) == (0, 2)


@pytest.mark.parametrize(
    "fault", [Fault(403), Fault(400), Fault(200, "<html>Please log in"), Fault(200, "[]"), Fault(200, '{"items": [3]}')]
)
def test_what_does_not_pass_is_no_hit_and_is_counted(google, service, fault, tmp_path):
    service.faults += [fault]
    assert google.search(["highest peak"]) == [[]]
    assert (google.failed, len(service.asked)) == ({"highest peak"}, 1)
    assert not (tmp_path / "cache").exists()  # a failure is no answer
    assert google.search(["highest peak"])[0][0] == FUJI
    assert len(google.failed) == 0


def test_a_service_that_stays_silent_costs_a_bounded_time(service, tmp_path):
    service.faults += [Fault(stall=True)] * 9
    start = time.monotonic()
    assert make(service.url, tmp_path, retries=8, total_seconds=0.8).search(["highest peak"]) == [[]]
    assert time.monotonic() - start < 1.5
    assert 2 <= len(service.asked) <= 4


def test_a_dead_network_is_given_up_and_said_once(tmp_path, capfd):
    google = make(closed_port(), tmp_path, retries=0)
    queries = [f"query {number}" for number in range(200)]
    start = time.monotonic()
    assert google.search(queries) == [[] for _ in queries]
    assert google.search(["one more"]) == [[]]
    assert (len(google.failed), time.monotonic() - start < 3) == (201, True)
    assert capfd.readouterr().err == (
        "web search: 3 queries in a row failed, the last with ConnectionRefusedError; no more are sent in this run, and"
        " questions are answered without passages\n"
    )


def test_failures_that_are_not_in_a_row_stop_nothing(google, service):
    for _ in range(4):
        service.faults += [Fault(403), Fault(403)]
        assert google.search(["a", "b", f"highest peak {len(service.asked)}"]) == [[], [], []]
    assert len(google.failed) == 2
    assert len(service.asked) == 12


def test_the_key_is_never_shown_or_kept(google, service, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    service.faults += [Fault(403), Fault(500), Fault(400), Fault(403)]
    google.search(["highest peak", "b", "c", "d"])
    google.search(["highest peak", "富士山"])
    output = capfd.readouterr()
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "status 4" in output.err
    assert KEY not in repr(google) + output.out + output.err + caplog.text + written


@pytest.mark.parametrize("name", ["GOOGLE_API_KEY", "GOOGLE_SEARCH_ENGINE_ID"])
def test_a_missing_key_or_engine_is_one_line(monkeypatch, name, tmp_path):
    monkeypatch.delenv(name)
    with pytest.raises(UserError, match=rf"^retriever=web needs the environment variable {name} \(docs"):
        make("http://127.0.0.1:1", tmp_path)


def test_a_page_holds_ten_hits(tmp_path):
    with pytest.raises(UserError, match="num_hits=11, expected 1 to 10"):
        make("http://127.0.0.1:1", tmp_path, num_hits=11)


def test_search_counts_failures_and_a_recording_leaves_them_out(google, service, tmp_path):
    service.faults += [Fault(403)]
    recording = Recording(google, str(tmp_path / "passages.jsonl"))
    examples = [Example(str(row), {"question": (text,)}) for row, text in enumerate(["a", "highest peak", "a"])]
    found = Search(recording).find(examples)
    assert found.counts == {"num_queries": 2, "num_without_hits": 2, "num_failed_queries": 1}
    assert [len(example.fields["passages"]) for example in found.examples] == [0, 2, 0]
    assert (tmp_path / "passages.jsonl").read_text().count("\n") == 1
    assert Recorded(recording.path).search(["highest peak", "a"]) == [google.search(["highest peak"])[0], []]


def closed_port() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://customsearch.example.com",
        "https://googleapis.com.example.com",
        "https://example.com/googleapis.com",
        "https://user@example.com#.googleapis.com",
        "https://evilgoogleapis.com",
        "http://customsearch.googleapis.com",
        "http://localhost.example.com",
        "http://127.0.0.1@example.com",
        "file:///etc/passwd",
        "https://a.googleapis.com\n",
        "",
    ],
)
def test_the_key_is_sent_to_google_or_this_machine_only(endpoint, tmp_path):
    with pytest.raises(UserError, match=r"^retriever\.endpoint=.* is refused, as it would be sent your key") as error:
        make(endpoint, tmp_path)
    assert "\n" not in str(error.value)
    for known in ("https://customsearch.googleapis.com", "http://localhost:80", "http://127.0.0.1:8000/"):
        make(known, tmp_path)
