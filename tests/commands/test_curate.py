"""The curation command: what it finds of known noise with the shipped steps, what it writes, what it refuses."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from benchmarks.curation_noise.__main__ import write_sample_noise
from benchmarks.curation_noise.noise import NOISE, draw_rows
from benchmarks.curation_noise.score import score, table
from nexttoken.commands.curate import UNKNOWN, find_licence, main, page, row_of
from nexttoken.data.targets import make
from nexttoken.errors import UserError
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.tasks.instruct import Instruct
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example
from support.composed import composed

ROWS = 5_000
MARKS = [
    "+train_transforms.marks._target_=nexttoken.transforms.curation.marks.KeepMarked",
    "+train_transforms.marks.path=nowhere.csv",
    "+train_transforms.marks.at_least=3",
]


@pytest.fixture(autouse=True)
def beside_conf(repository, monkeypatch):
    monkeypatch.chdir(repository)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    write_sample_noise(folder, ROWS, 0.26, seed=5)
    return folder


def read_lines(path):
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]


def steps(name):
    return make(composed(f"train_transforms={name}")["train_transforms"], "train_transforms")


def test_known_noise_is_found_and_clean_rows_stay(noisy, tmp_path, capsys):
    out = tmp_path / "curated"
    main([f"input_dir={noisy}", "train_transforms=curate_ja", "skip_faulty=true", f"out={out}", "licence=CC0"])
    kept = read_lines(out / "train.jsonl")
    results = score(read_lines(noisy / "truth.jsonl"), {row["id"] for row in kept})
    assert set(results) == {"clean", *NOISE}
    assert results["clean"].num_removed / results["clean"].num_rows <= 0.02
    shares = {kind: one.num_removed / one.num_rows for kind, one in results.items() if kind != "clean"}
    assert {kind: share for kind, share in shares.items() if share < 0.95} == {}
    assert [row["id"] for row in kept] == sorted(row["id"] for row in kept)  # in the order of the source
    assert "| clean " in table(results)

    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"][0]["sha256"] == hashlib.sha256((noisy / "train.jsonl").read_bytes()).hexdigest()
    assert manifest["files"][0]["num_lines"] == ROWS
    assert manifest["licence"] == "CC0"
    assert manifest["rows"]["kept"] == len(kept)
    assert "faulty" in manifest["reading"][0]
    assert list(manifest["steps"]) == list(steps("curate_ja"))
    assert manifest["steps"]["repeats"]["dropped"] > 0
    assert manifest["steps"]["first_rare_characters"]["settings"]["at_most"] == 19
    report = (out / "report.md").read_text(encoding="utf-8")
    assert report == page(manifest)
    assert f"wrote {out}: {len(kept):,} of" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"train.jsonl", "manifest.json", "report.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["curated"]


def test_what_is_curated_is_read_again_as_it_was(tmp_path):
    (tmp_path / "in").mkdir()
    rows = [
        {
            "task_id": 7,
            "input": "日本で一番高い山は何ですか。",
            "output": "富士山です。",
            "eval_aspect": "山の名",
            "source": "自作",
        },
        {
            "task_id": 8,
            "input": "一番長い川は何という川ですか。",
            "output": "信濃川という川です。",
            "eval_aspect": "",
            "source": "",
        },
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (tmp_path / "in" / "train.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "in" / "README.md").write_text("# Rows\n\nLicense: CC BY-SA 4.0\n")
    main([f"input_dir={tmp_path / 'in'}", "train_transforms=curate_ja", f"out={tmp_path / 'out'}", "processes=1"])
    before, after = (Instruct("instruct", tmp_path / name).read("train") for name in ("in", "out"))
    assert after == before
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["licence"] == "CC BY-SA 4.0 (README.md)"


def test_dialogues_are_written_by_turns_and_read_again(tmp_path):
    example = Example(
        "7",
        {DIALOGUE: ("おはよう", "おはようございます", "元気？")},
        answer="はい",
        tags={"dialogue": "7", "mark": "4"},
    )
    (tmp_path / "train.jsonl").write_text(json.dumps(row_of(example)) + "\n")
    (again,) = Dialogue("dialogue", tmp_path).read("train")
    assert replace(again, tags=example.tags) == example
    assert again.tags["mark"] == "4"


def test_an_answer_of_weight_0_is_written_as_such(tmp_path):
    example = Example("d", {"dialogue": ("Hi", "Wrong", "No")}, answer="Right", learns=(False, True))
    turns = row_of(example)["turns"]
    assert [turn.get("weight") for turn in turns] == [None, 0, None, None]
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "d", "turns": turns}) + "\n")
    (again,) = Dialogue("dialogue", tmp_path).read("train")
    assert (again.fields, again.answer, again.learns) == (example.fields, example.answer, example.learns)


def test_faulty_lines_stop_the_command_by_number_and_leave_nothing(tmp_path):
    good = json.dumps({"id": "a", "instruction": "一番高い山は。", "output": "富士山です。"})
    (tmp_path / "train.jsonl").write_text(f"{good}\n{{broken\n")
    with pytest.raises(UserError, match=r"train\.jsonl:2"):
        main([f"input_dir={tmp_path}", "train_transforms=curate_ja", f"out={tmp_path / 'out'}", "processes=1"])
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "write out=input/<name>"),
        (["out=x", "processes=0"], "processes='0' is not accepted: input should be greater"),
        (["out=x", "train_transforms=none"], "add train_transforms=curate_ja"),
        (["out=x", "task=quiz"], "no step of nexttoken.transforms.curation"),
        (["out=x", "train_transforms=curate_ja", "input_dir=nowhere"], "nowhere is no folder"),
        (["out=conf"], "exists already"),
        (["out=README.md/x", "train_transforms=curate_ja"], "File exists: 'README.md'"),
        (
            ["out=x", "train_transforms=curate_ja", "transforms=summary_length"],
            "are train.py's alone",
        ),
        (["out=x", "train_transforms=curate_ja", "train_transforms.words.words=GPT"], r"expected \[GPT\]"),
        (["out=x", "train_transforms=curate_ja", "train_transforms.lengths.asked=5"], r"asked=5, expected \[shortest"),
        (
            ["out=x", "train_transforms=curate_ja", "train_transforms.languages.language=jp"],
            "language 'jp'; write ja",
        ),
        (["out=x", "train_transforms=curate_ja", *MARKS], "nowhere.csv cannot be read"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, message):
    with pytest.raises((UserError, OSError), match=message):  # both are printed as one line
        main(arguments)


def test_a_trial_reads_the_first_rows_only_and_says_so(noisy, tmp_path):
    out = tmp_path / "out"
    arguments = [f"input_dir={noisy}", "train_transforms=curate_ja", "skip_faulty=true", f"out={out}", "processes=1"]
    main([*arguments, "limit_rows=30"])
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["rows"]["read"] == 30
    assert any("first 30 rows" in remark for remark in manifest["reading"])


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_command_leaves_no_process_and_at_most_a_hidden_folder(sent, noisy, tmp_path):
    texts = [text for text in (noisy / "train.jsonl").read_text(encoding="utf-8").split("\n") if '"id": "' in text]
    copies = (text.replace('"id": "', f'"id": "{copy}-', 1) for copy in range(20) for text in texts)
    (tmp_path / "train.jsonl").write_text("\n".join(copies), encoding="utf-8")  # some seconds of work
    command = [sys.executable, "-m", "nexttoken", "curate", f"input_dir={tmp_path}", "train_transforms=curate_ja"]
    first = subprocess.Popen([*command, f"out={tmp_path / 'out'}", "skip_faulty=true"], start_new_session=True)
    while not list(tmp_path.glob(".out.*/rows0")):
        time.sleep(0.05)
    time.sleep(1)  # its workers are at work
    first.send_signal(sent)
    assert first.wait(20)
    assert not (tmp_path / "out").exists()
    assert bool(list(tmp_path.glob(".out.*"))) == (sent == signal.SIGKILL)
    until = time.monotonic() + 10
    while time.monotonic() < until and session_lives(first.pid):
        time.sleep(0.1)
    assert not session_lives(first.pid)


def session_lives(leader):
    """True if a process of this one's group is still running."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_licence_is_looked_for_beside_the_rows(tmp_path):
    assert find_licence(tmp_path) == UNKNOWN
    (tmp_path / "LICENSE.txt").write_text("\n  MIT License  \n\nCopyright ...")
    assert find_licence(tmp_path) == "MIT License (LICENSE.txt)"


def test_a_page_shows_text_of_the_data_as_plain_text():
    counts = {"kept": 0, "dropped": 1, "changed": 0, "reasons": {"answered: </": 1}}
    step = counts | {"examples": [{"id": "a|b", "reason": "x", "text": "<b>\n[a](b)"}]}
    text = page({"rows": {"read": 1, "kept": 0}, "licence": "CC0", "reading": [], "steps": {"words": step}})
    assert r"| a\|b | x | &lt;b> \[a\](b) |" in text


def test_every_shipped_curation_composes():
    assert list(steps("curate_ja"))[:3] == ["replacements", "empty", "lengths"]
    assert "languages" in steps("curate_en")


def test_english_rows_survive_the_english_steps():
    rows = [
        Example(
            str(n),
            {INSTRUCTION: (f"Name {n} rivers of Europe, please.",), INPUT: ("",)},
            answer=f"The Rhine and {n} more.",
        )
        for n in range(9)
    ]
    rows.append(Example("ja", {INSTRUCTION: ("川の名前を挙げてください。",), INPUT: ("",)}, answer="信濃川です。"))
    for step in steps("curate_en").values():
        rows = step(rows)
    assert len(rows) == 9


def test_the_noise_is_the_same_for_a_seed_and_every_kind_is_there():
    rows = draw_rows(400, 0.26, seed=1)
    assert rows == draw_rows(400, 0.26, seed=1)
    assert {row.kind for row in rows.values()} == {"clean", *NOISE}
    assert all(rows[row.of].kind == "clean" for row in rows.values() if row.of)


def test_scoring_takes_either_of_two_equal_rows():
    truth = [{"id": "a", "kind": "clean"}, {"id": "b", "kind": "repeat", "of": "a"}, {"id": "c", "kind": "clean"}]
    by_kept = {kept: score(truth, set(kept)) for kept in ("ac", "bc", "abc", "c")}
    assert [by_kept[kept]["repeat"].num_removed for kept in by_kept] == [1, 1, 0, 1]
    assert [by_kept[kept]["clean"].num_removed for kept in by_kept] == [0, 0, 0, 1]


def test_the_generator_is_a_command(tmp_path):
    command = [sys.executable, "-m", "benchmarks.curation_noise", f"out={tmp_path}", "rows=200"]
    assert "of 13 kinds of noise" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(read_lines(tmp_path / "truth.jsonl")) == 200
