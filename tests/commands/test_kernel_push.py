"""A kernel folder is pushed by Kaggle's own client; a local server stands in Kaggle's place and keeps what it gets."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.kaggle_client import command, refused
from support.kernels import ANSWER, write_kernel


class Kaggle(BaseHTTPRequestHandler):
    """Data sets and kernels: `server.version` counts the versions of the only data set, 0 for none yet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        call, server = self.path.rsplit("/", 1)[-1], self.server
        server.calls.append(call)
        if call in server.refused:
            return self.reply(server.refused[call], {"code": server.refused[call], "message": "no"})
        if call == "StartBlobUpload":
            server.token = request["name"]
            return self.reply(200, {"token": request["name"], "createUrl": "http://localhost/upload?token=secret"})
        if call in ("GetDatasetStatus", "GetDataset") and not server.version:
            return self.reply(404, {"code": 404, "message": "no"})
        if call in ("CreateDataset", "CreateDatasetVersion"):
            server.version, server.request = server.version + 1, request
        if call == "SaveKernel":
            server.kernel = request
        names = [name for name in server.files if name not in server.lost]
        return self.reply(
            200,
            {
                "GetDatasetStatus": {"status": "READY"},
                "GetDataset": {"currentVersionNumber": server.version},
                "ListDatasetFiles": {"datasetFiles": [{"name": name} for name in names]},
                "SaveKernel": {"url": "https://kaggle.test/k", "versionNumber": 3, **server.answer},
            }.get(call, {"status": "Ok", "error": ""}),
        )

    def do_PUT(self) -> None:
        self.server.files[self.server.token] = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(200, {})

    def reply(self, status: int, values: dict) -> None:
        body = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def kaggle() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    server.calls, server.files, server.lost, server.refused, server.answer = [], {}, set(), {}, {}
    server.version, server.token = 0, ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def kernel(tmp_path) -> Path:
    return write_kernel(tmp_path / "kernel", ANSWER)


def test_the_data_set_goes_first_and_is_checked_then_the_notebook(tmp_path, kernel, kaggle):
    done = command("push", "kernel", cwd=tmp_path, port=kaggle.server_port)
    assert done.returncode == 0, done.stderr
    assert "data set me/rehearsed-files: version 1" in done.stdout
    assert "kernel me/rehearsed: version 3 runs on NvidiaTeslaT4" in done.stdout
    sent = {path.name: path.read_bytes() for path in (kernel / "dataset").iterdir()}
    sent.pop("dataset-metadata.json")
    assert kaggle.files == sent
    assert kaggle.request["isPrivate"] is True
    assert (kaggle.kernel["machineShape"], kaggle.kernel["enableInternet"]) == ("NvidiaTeslaT4", False)
    assert kaggle.kernel["competitionDataSources"] == ["lmsys-chatbot-arena"]
    assert [call for call in kaggle.calls if call.startswith(("Create", "Save"))] == ["CreateDataset", "SaveKernel"]
    again = command("push", "kernel", cwd=tmp_path, port=kaggle.server_port)
    assert "me/rehearsed-files: version 2" in again.stdout
    assert kaggle.calls.count("CreateDataset") == kaggle.calls.count("CreateDatasetVersion") == 1


def test_a_file_that_did_not_arrive_is_named_and_the_notebook_is_not_pushed(tmp_path, kernel, kaggle):
    kaggle.lost = {"manifest.json"}
    done = command("push", "kernel", cwd=tmp_path, port=kaggle.server_port)
    assert "Kaggle's copy of me/rehearsed-files lacks manifest.json; push again" in refused(done)
    assert "SaveKernel" not in kaggle.calls


def test_an_input_that_kaggle_left_out_is_named_with_the_fix(tmp_path, kernel, kaggle):
    kaggle.answer = {"invalidModelSources": ["google/gemma-2/transformers/9b/2"]}
    done = command("push", "kernel", cwd=tmp_path, port=kaggle.server_port)
    assert "left out the model google/gemma-2/transformers/9b/2; accept its licence on its page" in done.stderr
    assert done.returncode == 2


def test_refusals_of_kaggle_are_one_line(tmp_path, kernel, kaggle):
    kaggle.refused = {"CreateDataset": 403}
    message = refused(command("push", "kernel", cwd=tmp_path, port=kaggle.server_port))
    assert "is me/rehearsed under your own name on Kaggle" in message


def test_a_folder_changed_by_hand_is_never_sent(tmp_path, kernel, kaggle):
    (kernel / "notebook.ipynb").write_text("{}")
    message = refused(command("push", "kernel", cwd=tmp_path, port=kaggle.server_port))
    assert "notebook.ipynb was changed after the kernel folder was built" in message
    assert "is no kernel folder" in refused(command("push", "elsewhere", cwd=tmp_path, port=kaggle.server_port))
    assert kaggle.calls == []
