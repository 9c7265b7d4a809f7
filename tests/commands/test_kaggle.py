"""Archives are unpacked safely or not at all; Kaggle's own client runs against a local server in Kaggle's place."""

import io
import json
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nexttoken.commands import archive
from nexttoken.commands.kaggle import FILES, SLUGS, unpack
from nexttoken.errors import UserError
from nexttoken.runs.ledger import read_ledger
from support.kaggle_client import command, refused

SAMPLE = "id,winner_model_a,winner_model_b,winner_tie\n007,0.3,0.3,0.4\n8,0.3,0.3,0.4\n"
CONTENT = {"train.csv": "id\n1\n", "test.csv": "id,prompt\n007,x\n8,y\n", "sample_submission.csv": SAMPLE}


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def zipped(*extra: tuple[zipfile.ZipInfo, bytes], content: dict[str, str] = CONTENT) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in content.items():
            file.writestr(member(name), text)
        for info, data in extra:
            file.writestr(info, data)
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path):
    """An empty folder to unpack in; whatever is refused must leave it empty."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def unpack_bytes(data: bytes, place: Path) -> None:
    path = place.parent / "lmsys.zip"
    path.write_bytes(data)
    unpack(path, place / "input", FILES)


def test_an_archive_is_unpacked_with_its_subfolders(place):
    unpack_bytes(zipped((member("more/", stat.S_IFDIR | 0o755), b""), (member("more/deep/notes.txt"), b"hello")), place)
    found = {str(file.relative_to(place)): file.read_text() for file in place.rglob("*") if file.is_file()}
    assert found == {f"input/{name}": text for name, text in CONTENT.items()} | {"input/more/deep/notes.txt": "hello"}
    assert [path.name for path in place.iterdir()] == ["input"]


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../outside.txt", stat.S_IFREG),
        ("a/../../outside.txt", stat.S_IFREG),
        ("..\\outside.txt", stat.S_IFREG),
        ("/tmp/nexttoken-outside.txt", stat.S_IFREG),
        ("\\outside.txt", stat.S_IFREG),
        ("C:\\outside.txt", stat.S_IFREG),
        ("c:outside.txt", stat.S_IFREG),
        ("..", stat.S_IFDIR),
        ("./", stat.S_IFDIR),
        ("link", stat.S_IFLNK | 0o777),
        ("pipe", stat.S_IFIFO),
        ("TRAIN.csv", stat.S_IFREG),
        ("./train.csv", stat.S_IFREG),
    ],
)
def test_a_member_that_could_land_elsewhere_refuses_the_whole_archive(place, name, mode):
    with pytest.raises(UserError, match="is refused, nothing was unpacked"):
        unpack_bytes(zipped((member(name, mode), b"/etc/passwd")), place)
    assert list(place.iterdir()) == []
    assert {path.name for path in place.parent.iterdir()} == {"place", "lmsys.zip"}


def test_a_zip_bomb_is_refused_by_ratio_and_by_size(place, monkeypatch):
    with pytest.raises(UserError, match=r"unpacks to 20,000,000 bytes from"):
        unpack_bytes(zipped((member("bomb.csv"), b"0" * 20_000_000)), place)
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    with pytest.raises(UserError, match=r"at most .* of 1,000 bytes are expected"):
        unpack_bytes(zipped((member("large.csv"), os.urandom(1000))), place)
    assert list(place.iterdir()) == []


def test_a_member_larger_than_it_declares_is_refused(place):
    data = zipped((member("lie.csv"), b"0123456789" * 100))
    assert data.count((1000).to_bytes(4, "little")) == 2  # the size in the local and in the central header
    with pytest.raises(UserError, match="is damaged"):
        unpack_bytes(data.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")), place)
    assert list(place.iterdir()) == []


def test_damage_anywhere_in_the_archive_is_refused_or_changes_nothing(place):
    """Every byte in turn is flipped: either nothing is unpacked, or exactly the right contents under safe names."""
    whole = zipped()
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 0xFF
        try:
            unpack_bytes(bytes(data), place)
        except UserError:
            assert list(place.iterdir()) == [], position
        else:
            assert {name: (place / "input" / name).read_text() for name in CONTENT} == CONTENT, position
            for file in (place / "input").iterdir():
                file.unlink()
            (place / "input").rmdir()


@pytest.mark.parametrize("length", [0, 10, 200, -1])
def test_a_truncated_download_is_refused(place, length):
    with pytest.raises(UserError, match="is damaged"):
        unpack_bytes(zipped()[:length], place)
    assert list(place.iterdir()) == []


def test_an_archive_of_another_competition_is_refused(place):
    with pytest.raises(UserError, match=r"holds no test\.\*, sample_submission\.\*"):
        unpack_bytes(zipped(content={"train.csv": "id\n", "test.csv": ""}), place)
    assert list(place.iterdir()) == []


def test_a_name_that_is_both_file_and_folder_is_refused(place):
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_bytes(zipped((member("train.csv/x"), b"x")), place)
    assert list(place.iterdir()) == []


def test_existing_files_are_never_overwritten(place):
    (place / "input").mkdir()
    unpack_bytes(zipped(), place)  # an empty folder is no obstacle
    (place / "input" / "train.csv").write_text("mine")
    with pytest.raises(UserError, match="is already there"):
        unpack_bytes(zipped(), place)
    assert (place / "input" / "train.csv").read_text() == "mine"


class Kaggle(BaseHTTPRequestHandler):
    """Requests of Kaggle's client, answered from `server.archive`, or with `server.status` if that is an error."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self.path.rsplit("/", 1)[-1]
        self.server.calls.append(call)
        if self.server.status != 200:
            self.reply(self.server.status, json.dumps({"code": self.server.status, "message": "no"}).encode())
        elif call == "DownloadDataFiles":
            self.send_response(302)
            self.send_header("Location", "http://localhost/archive.zip?token=secret")
            self.end_headers()
        elif call == "StartSubmissionUpload":
            self.reply(200, json.dumps({"token": "t", "createUrl": "http://localhost/upload?token=secret"}).encode())
        else:
            self.reply(200, json.dumps({"message": "Successfully submitted", "ref": 1}).encode())

    def do_GET(self) -> None:
        self.reply(200, self.server.archive, "application/zip")

    def do_PUT(self) -> None:
        self.server.uploaded = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(200, b"{}")

    def reply(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def kaggle() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    server.archive, server.status, server.calls, server.uploaded = zipped(), 200, [], b""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_download_through_kaggles_own_client(tmp_path, kaggle):
    done = command("download", cwd=tmp_path, port=kaggle.server_port)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "input" / "lmsys-chatbot-arena"
    assert {path.name: path.read_text() for path in folder.iterdir()} == CONTENT
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert kaggle.calls == ["DownloadDataFiles"]
    assert "already there" in refused(command("download", cwd=tmp_path, port=kaggle.server_port))


def test_a_task_names_its_competition_whose_tables_may_be_parquet(tmp_path, kaggle):
    kaggle.archive = zipped(content=dict.fromkeys(("train.parquet", "test.parquet", "sample_submission.csv"), "PAR1"))
    done = command("download", "competition=wsdm", cwd=tmp_path, port=kaggle.server_port)
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "input" / "wsdm-cup-multilingual-chatbot-arena").iterdir()]) == 3


def test_every_task_that_names_a_competition_is_known():
    """The folder that the comment of a task's YAML names is the one that `download` fills."""
    conf = Path(__file__).parents[2] / "conf/task"
    named = {task: (conf / f"{task}.yaml").read_text() for task in SLUGS}
    assert [task for task, text in named.items() if f"input/{SLUGS[task]}" not in text] == []


def test_without_accepted_rules_the_download_says_where_to_accept_them(tmp_path, kaggle):
    kaggle.status = 403
    message = refused(command("download", "input_dir=input/x", cwd=tmp_path, port=kaggle.server_port))
    assert (
        "accept the competition's rules first at https://www.kaggle.com/competitions/lmsys-chatbot-arena/rules"
        in message
    )
    assert list((tmp_path / "input").iterdir()) == []


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "accepted no credentials"), (404, "knows no competition"), (500, "500")]
)
def test_other_refusals_are_one_line(tmp_path, kaggle, status, reason):
    kaggle.status = status
    assert reason in refused(command("download", cwd=tmp_path, port=kaggle.server_port))


def test_a_hostile_download_leaves_nothing(tmp_path, kaggle):
    kaggle.archive = zipped((member("../../evil.txt"), b"x"))
    assert "points outside" in refused(command("download", cwd=tmp_path, port=kaggle.server_port))
    assert not (tmp_path / "evil.txt").exists()
    assert list((tmp_path / "input").iterdir()) == []


def test_no_network_no_credentials_no_client(tmp_path):
    assert "cannot be reached" in refused(command("download", cwd=tmp_path))
    message = refused(command("download", cwd=tmp_path, credentials=False))
    assert "https://www.kaggle.com/settings/api" in message
    assert "lmsys-chatbot-arena/rules" in message
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "kaggle.py").write_text("import a_package_that_is_not_installed")
    message = refused(command("download", cwd=tmp_path, PYTHONPATH=str(tmp_path / "hidden")))
    assert "No module named 'a_package_that_is_not_installed'" in message
    assert "pip install 'kaggle>=2.2' six" in message


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "got nothing"),
        (("downlod",), "got downlod"),
        (("submit",), "got submit"),
        (("download", "inputdir=x"), "did you mean 'input_dir'?"),
        (("download", "competition=../x"), "is no competition"),
    ],
)
def test_mistyped_commands(tmp_path, words, reason):
    assert reason in refused(command(*words, cwd=tmp_path))


def submission(tmp_path: Path, text: str = SAMPLE) -> Path:
    files = {f"input/lmsys-chatbot-arena/{name}": content for name, content in CONTENT.items()}
    for name, content in {**files, "submissions/lr=0.1.csv": text}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path / "submissions" / "lr=0.1.csv"


def test_submit_validates_uploads_and_records(tmp_path, kaggle):
    path = submission(tmp_path)
    done = command("submit", "submissions/lr=0.1.csv", "message=first try", cwd=tmp_path, port=kaggle.server_port)
    assert done.returncode == 0, done.stderr
    assert "Successfully submitted" in done.stdout
    assert kaggle.uploaded == path.read_bytes()
    assert kaggle.calls == ["StartSubmissionUpload", "CreateSubmission"]
    assert [line.file for line in read_ledger(path.with_name("ledger.csv"))] == ["lr=0.1.csv"]


def test_an_invalid_submission_is_never_sent(tmp_path, kaggle):
    path = submission(tmp_path, SAMPLE.replace("007", "7"))
    assert "007" in refused(command("submit", str(path), cwd=tmp_path, port=kaggle.server_port))
    assert kaggle.calls == []


def test_a_refused_submission_names_the_code_competition_and_is_not_recorded(tmp_path, kaggle):
    kaggle.status = 400
    path = submission(tmp_path)
    message = refused(command("submit", str(path), cwd=tmp_path, port=kaggle.server_port))
    assert "was not submitted" in message
    assert "in a code competition such as LMSYS submit the notebook" in message
    assert not path.with_name("ledger.csv").exists()


def test_submit_without_the_competitions_files_says_how_to_get_them(tmp_path):
    assert "nope.csv is no file; expected a submission" in refused(command("submit", "nope.csv", cwd=tmp_path))
    (tmp_path / "x.csv").write_text(SAMPLE)
    assert "python -m nexttoken kaggle download" in refused(command("submit", "x.csv", cwd=tmp_path))
