"""Models by hub name, in processes of their own, from a hub on this machine: each way it goes, one line for each."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from nexttoken.errors import UserError
from nexttoken.models.hub import from_hub, locate
from nexttoken.models.load import load_model, load_tokenizer
from nexttoken.settings import ModelSettings, ScratchSettings
from support.hub_server import Fault, Hub, Repository, serve

pytestmark = pytest.mark.slow

CHILD = """
import hashlib, json, os, sys, time
from transformers import LlamaForCausalLM  # imports what loading will want, so that only the loading is timed
from nexttoken.errors import UserError
from nexttoken.models.load import load_config, load_model, load_tokenizer, within_context
from nexttoken.settings import ModelSettings

for name, revision, token in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"] = token
    settings, start = ModelSettings(name_or_path=name, revision=revision), time.monotonic()
    try:
        tokenizer = load_tokenizer(settings, ())
        within_context(load_config(settings), 64)
        state = load_model(settings, tokenizer, 64).state_dict()
        weights = hashlib.sha256(b"".join(key.encode() + state[key].numpy().tobytes() for key in sorted(state)))
        got = {"weights": weights.hexdigest()}
    except UserError as error:
        got = {"line": str(error)}
    print(json.dumps(got | {"seconds": time.monotonic() - start}), flush=True)
"""
NO_NETWORK = "http://127.0.0.1:9"
SOON = 10  # seconds, under load; a retried request takes 23
REFUSED = {  # what is asked for: name, revision, token; and how the line goes on ({hub}: the hub's address)
    ("lab/gated", None, ""): "it is gated: accept its licence at {hub}/lab/gated and set HF_TOKEN to a token of",
    (
        "lab/gated",
        None,
        "stranger",
    ): "it is gated and your token's account needs access: accept its licence at {hub}",
    ("lab/gated", None, "expired"): "your token is not valid: set HF_TOKEN to one of {hub}/settings/tokens",
    (
        "lab/unknown",
        None,
        "",
    ): "check the name: there is no {hub}/lab/unknown, or it is private and HF_TOKEN must",
    ("lab/unknown", None, "member"): "check the name: there is no {hub}/lab/unknown, or it is private",
    ("not a name", None, ""): "check the name: there is no {hub}/not a name",
    ("lab/plain", "v9", ""): "model.revision='v9' does not exist: give a branch, tag or commit of {hub}/lab/plain",
    ("lab/captured", None, ""): "what answers at {hub} is not a hub: check HF_ENDPOINT, the proxy, and the network's",
    ("lab/web-page", None, ""): "see whether {hub}/lab/web-page/tree/main holds a complete causal language model",
    ("lab/one-shard", None, ""): "see whether {hub}/lab/one-shard/tree/main holds a complete causal language model",
    ("lab/no-config", None, ""): "see whether {hub}/lab/no-config/tree/main holds a complete causal language model",
    ("lab/pickle", None, ""): "its weights are a pickle that wants to run code, which is refused; use safetensors",
    (
        "lab/own-code",
        None,
        "",
    ): "it ships its own code, which is not executed; if you trust it, set model.trust_",
}
WELCOME = [("lab/plain", None, ""), ("lab/gated", None, "member"), ("lab/safe-pickle", None, "")]


class Touch:
    """A pickle that creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[Path]]:
        return Path.touch, (self.path,)


@dataclass
class Story:
    """The hub after everything, the folders it served, and what each process said about each thing it asked for."""

    hub: Hub
    root: Path
    online: dict[tuple, dict[str, Any]]
    interrupted: list[dict[str, Any]]
    again: dict[tuple, dict[str, Any]]
    no_network: dict[tuple, dict[str, Any]]
    offline: dict[tuple, dict[str, Any]]
    left_by_kill: list[str]


def build_repositories(root: Path) -> dict[str, Repository]:
    """The folders of all repositories under `root`, each a variation of one tiny model."""
    texts = ["### Answer\nA", "### Answer\nB"]
    for name, width, shard in (("plain", 32, "1GB"), ("sharded", 32, "60KB"), ("big", 512, "1GB")):
        torch.manual_seed(width)
        scratch = ScratchSettings(vocab_size=300, hidden_size=width, num_layers=2, num_heads=4)
        tokenizer = load_tokenizer(ModelSettings(scratch=scratch), texts)
        model = load_model(ModelSettings(scratch=scratch), tokenizer, 64)
        tokenizer.save_pretrained(root / name)
        model.save_pretrained(root / name, max_shard_size=shard)
    for name in ("pickle", "safe-pickle", "own-code", "web-page", "no-config"):
        shutil.copytree(root / "plain", root / name)
    for name in ("pickle", "safe-pickle"):
        (root / name / "model.safetensors").unlink()
    plain = load_model(ModelSettings(name_or_path=str(root / "plain")), tokenizer, 64)
    torch.save(plain.state_dict(), root / "safe-pickle" / "pytorch_model.bin")
    torch.save({"lm_head.weight": Touch(root / "executed")}, root / "pickle" / "pytorch_model.bin")
    config = json.loads((root / "plain" / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (root / "own-code" / "config.json").write_text(json.dumps(config))
    (root / "own-code" / "own.py").write_text(f"import pathlib; pathlib.Path({str(root / 'executed')!r}).touch()")
    (root / "web-page" / "config.json").write_text("<html>Please log in</html>")
    (root / "no-config" / "config.json").unlink()
    repositories = {f"lab/{path.name}": Repository(path) for path in root.iterdir()}
    return repositories | {
        "lab/gated": Repository(root / "plain", gated=True, members=("member",)),
        "lab/one-shard": Repository(root / "sharded", absent=("model-00002-of-00003.safetensors",)),
        "lab/captured": Repository(root / "plain", captured=True),
        "lab/busy": Repository(root / "plain"),
        "lab/forbidden": Repository(root / "plain"),
        "lab/dead": Repository(root / "sharded"),
    }


def ask(home: Path, endpoint: str, steps: list[tuple], **environment: str) -> subprocess.Popen[str]:
    """A process that loads one model after the other by name and prints what came of each."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    env |= {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1,localhost"}
    command = [sys.executable, "-c", CHILD, json.dumps(steps)]
    return subprocess.Popen(command, env=env | environment, stdout=subprocess.PIPE, text=True)


def answers(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Downloads, refusals and interruptions in two processes at once; then, with their cache, three more."""
    root, home = tmp_path_factory.mktemp("repositories"), tmp_path_factory.mktemp("home")
    hub = Hub(build_repositories(root), tokens=("member", "stranger"))
    shard = "lab/dead/model-00002-of-00003.safetensors"
    hub.faults = {
        "lab/big/model.safetensors": [Fault(after=11 * 2**20)],
        "lab/busy/model.safetensors": [Fault(status=503), Fault(status=429)],
        "lab/forbidden/config.json": [Fault(status=403)] * 9,
        shard: [Fault()] * 6 + [Fault(after=1000, stall=True)],  # huggingface_hub tries six times
    }
    folders = [(str(root / name), None, "") for name in ("plain", "big")]
    dead, half, plain = (("lab/" + name, None, "") for name in ("dead", "one-shard", "plain"))
    with serve(hub):
        asked = [*folders, *REFUSED, *WELCOME]  # a gated model that was downloaded once is not asked for again
        online = ask(home, hub.url, asked)
        interrupted = ask(home, hub.url, [("lab/big", None, ""), ("lab/busy", None, ""), dead, dead])
        assert hub.stalled.wait(120)
        interrupted.kill()
        left = [path.name for path in (home / "hub" / "models--lab--dead").rglob("*")]
        first = dict(zip(asked, answers(online), strict=True))
        later = [("lab/unseen", None, ""), half, plain]
        processes = [
            ask(home, hub.url, [dead, plain]),
            ask(home, NO_NETWORK, later),
            ask(home, hub.url + "/offline", later, HF_HUB_OFFLINE="1"),
        ]
        again, no_network, offline = (answers(process) for process in processes)
        yield Story(
            hub,
            root,
            first,
            answers(interrupted),
            dict(zip([dead, plain], again, strict=True)),
            dict(zip(later, no_network, strict=True)),
            dict(zip(later, offline, strict=True)),
            left,
        )


def size(story: Story, path: str) -> int:
    return (story.root / path).stat().st_size


def test_a_first_download_is_the_folder(story):
    plain = story.online[(str(story.root / "plain"), None, "")]["weights"]
    assert [story.online[step].get("weights") for step in WELCOME] == [plain] * len(WELCOME)
    assert story.hub.sent["lab/gated/model.safetensors"] == size(story, "plain/model.safetensors")
    assert story.hub.leaked == [], "the token is for the hub, not for the host of the large files"


def test_nobody_is_asked_to_convert_a_pickle(story):
    asked = [request for request in story.hub.requests if "/api/models/lab/safe-pickle" in request]
    assert asked
    assert not [request for request in asked if "commits" in request or "discussions" in request]


@pytest.mark.parametrize("step", REFUSED, ids=lambda step: f"{step[0]} {step[1] or ''} {step[2]}".strip())
def test_a_refusal_is_one_line_with_the_fix(story, step):
    line = story.online[step]["line"]
    assert line.startswith(f"model {step[0]!r} could not be loaded: {REFUSED[step].format(hub=story.hub.url)}")
    assert "\n" not in line
    assert story.online[step]["seconds"] < SOON


def test_a_full_disk_is_named():
    def load() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match="does not take it: make room there, or set HF_HOME to another disk"):
        from_hub(load, ModelSettings(name_or_path="lab/plain"))


def test_what_a_repository_ships_does_not_run(story):
    assert story.hub.sent["lab/pickle/pytorch_model.bin"] > 0
    assert not (story.root / "executed").exists()


def test_a_second_process_loads_from_the_cache(story):
    plain = ("lab/plain", None, "")
    assert story.again[plain]["weights"] == story.online[plain]["weights"]
    assert story.hub.sent["lab/plain/model.safetensors"] == size(story, "plain/model.safetensors")


@pytest.mark.parametrize("how", ["no_network", "offline"])
def test_without_network_the_cache_is_enough(story, how):
    unseen, half, plain = getattr(story, how).values()
    assert plain["weights"] == story.online[("lab/plain", None, "")]["weights"]
    assert plain["seconds"] < SOON
    for name, answer in (("unseen", unseen), ("one-shard", half)):
        assert answer["line"].startswith(f"model 'lab/{name}' could not be loaded: the hub cannot be reached, and ")
        assert answer["line"].endswith(
            " does not hold all of it; give a folder that does, or download it while there is a network"
        )
        assert "\n" not in answer["line"]
        assert answer["seconds"] < SOON
    assert not [request for request in story.hub.requests if "/offline" in request]


def test_a_broken_connection_is_resumed_where_it_broke(story):
    """huggingface_hub writes pieces of 10 MiB: of the 11 that came, the last was lost."""
    big = "lab/big/model.safetensors"
    assert story.interrupted[0]["weights"] == story.online[(str(story.root / "big"), None, "")]["weights"]
    assert story.hub.ranges[big] == f"bytes={10 * 2**20}-"
    assert story.hub.sent[big] == size(story, "big/model.safetensors") + 2**20


def test_a_busy_hub_is_asked_again(story):
    assert story.interrupted[1]["weights"] == story.online[("lab/plain", None, "")]["weights"]
    assert story.hub.faults["lab/busy/model.safetensors"] == []


def test_a_dead_connection_or_a_kill_leaves_nothing_that_is_taken_for_whole(story):
    line = story.interrupted[2]["line"]
    assert f"the connection to {story.hub.url} broke: run the same command again, complete files are kept" in line
    assert len(story.interrupted) == 3, "the fourth was killed in the middle of a shard"
    assert "model-00002-of-00003.safetensors" not in story.left_by_kill
    assert [name for name in story.left_by_kill if name.endswith(".incomplete")]
    dead = story.again[("lab/dead", None, "")]
    assert dead["weights"] == story.online[("lab/plain", None, "")]["weights"]
    for part in ("00001", "00003"):
        name = f"model-{part}-of-00003.safetensors"
        assert story.hub.sent[f"lab/dead/{name}"] == size(story, f"sharded/{name}"), "not sent again"


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        ("<!doctype html>\n<html><body>Sign in</body></html>", "is a web page"),
    ],
)
def test_a_file_that_stands_in_for_a_model_file_is_named_before_loading(tmp_path, name, content, reason):
    (tmp_path / "README.md").write_text(content)  # no part of the model
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == str(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=reason) as error:
        locate(str(tmp_path))
    assert str(tmp_path / name) in str(error.value)
