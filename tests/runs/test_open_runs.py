"""Open answers from a task's files to a submission: trained, scored, written, killed and resumed, on small models."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from nexttoken import load_run, pipeline
from nexttoken.errors import UserError
from nexttoken.progress import Deadline, TimeIsUp
from nexttoken.runs.config import Changes
from nexttoken.runs.folder import RunFolder
from nexttoken.runs.ledger import read_ledger
from nexttoken.runs.loaded import LoadedRun
from nexttoken.types import Example
from support.interrupted import run
from support.training import composed

SMALL = [
    "name=small",
    "fold=0",
    "logger=none",
    "trainer.max_epochs=2",
    "model.scratch.vocab_size=400",
    "model.scratch.num_layers=1",
    "model.scratch.hidden_size=32",
    "generation.max_new_tokens=12",
    "max_tokens=200",
]


def train(output_dir: Path, *overrides: str) -> float:
    return pipeline.train(composed("train", *SMALL, f"output_dir={output_dir}", *overrides))


def predict(output_dir: Path, *overrides: str) -> list[dict]:
    places = (f"output_dir={output_dir}", f"submissions_dir={output_dir / 'submissions'}")
    path = pipeline.predict(composed("predict", *places, *overrides))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def instruct(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("instruct")
    train(folder, "task=instruct", "limit_rows=40", "generate_rows=5", "save_prompts=true")
    return folder


@pytest.fixture(scope="module")
def dialogue(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dialogue")
    train(folder, "task=dialogue", "limit_rows=12", "train_transforms=windows_first_4", "transforms=persona_short")
    return folder


def test_test_rows_are_not_the_held_out_rows_of_the_same_ids(instruct: Path) -> None:
    loaded = load_run(instruct / "instruct" / "small")
    (fold,) = loaded.folds
    held_out, everything = loaded.held_out(fold), loaded.parts.task.read("train")
    others = [replace(example, tags={"file": "test.jsonl"}) for example in held_out]
    assert loaded.rows.demonstrations(fold, others) == everything
    assert loaded.rows.demonstrations(fold, held_out) == [example for example in everything if example not in held_out]


def test_a_fold_of_instructions_leaves_what_the_judge_needs(instruct):
    fold = instruct / "instruct" / "small" / "fold0"
    saved = json.loads((fold / "metrics.json").read_text())
    oof = pd.read_csv(fold / "oof.csv", dtype={"id": str, "row": str})
    assert list(oof) == ["id", "row", "fold", "nll", "num_tokens", "num_characters"]
    assert len(oof) == saved["num_examples"] == 40
    assert saved["log_loss"] == pytest.approx(oof["nll"].sum() / oof["num_tokens"].sum())
    assert saved["nll_per_character"] == pytest.approx(oof["nll"].sum() / oof["num_characters"].sum())
    assert saved["log_loss"] < 6  # of 400 tokens: ln 400 = 5.99
    assert saved["baseline_nll_per_character"] < saved["uniform_nll_per_character"]
    assert [row["id"] for row in lines(fold / "generated.jsonl")] == oof["id"].tolist()[:5]
    tokens = pd.read_csv(fold / "tokens.csv")
    assert (tokens["num_user_tokens"] + tokens["num_assistant_tokens"] == tokens["num_tokens"]).all()
    shown = lines(fold / "prompts.jsonl")[0]
    assert "### Response:\n" in shown["text"]


def test_a_submission_has_every_task_in_the_order_of_the_input(instruct, repository):
    rows = predict(instruct)
    asked = lines(repository / "input" / "sample-instruct" / "test.jsonl")
    assert [row["task_id"] for row in rows] == [row["id"] for row in asked]
    assert all(isinstance(row["output"], str) for row in rows)


def test_another_way_of_asking_and_writing_may_be_given(instruct):
    again = ("inference=demonstrations", "retriever=bm25", "inference.num_demonstrations=3", "name=shown")
    assert len(predict(instruct, *again, "generation.max_new_tokens=2")) == len(predict(instruct))
    journals = list((instruct / "submissions" / "written").iterdir())
    assert len(journals) == 2  # one for each way: neither takes the other's answers
    with pytest.raises(UserError, match=r"cannot; add retriever=bm25"):
        predict(instruct, "inference=demonstrations")
    with pytest.raises(UserError, match="fold=3 is not finished; finished folds are 0"):
        predict(instruct, "fold=3")
    with pytest.raises(UserError, match=r"generation\.top_p"):
        predict(instruct, "generation.top_p=2")


def test_demonstrations_of_held_out_rows_are_never_from_their_own_fold(instruct, monkeypatch, capsys):
    from nexttoken.engine.generation.writer import Writer

    retriever = {"_target_": BM25, "corpus": "unused", "index_dir": str(instruct / "index")}
    changes = Changes({"_target_": "nexttoken.inference.Demonstrations", "retriever": {}}, retriever=retriever)
    run = LoadedRun.load(RunFolder(instruct / "instruct" / "small"), changes=changes)
    fold = run.folds[0]
    held_out = run.held_out(fold)
    shown = []

    def write(self, views, *rest):
        shown.extend(views)
        return original(self, views, *rest)

    original = Writer.write
    monkeypatch.setattr(Writer, "write", write)
    run.generate(fold, held_out[:6])
    assert "of 6 prompts were shortened: demonstrations only" in capsys.readouterr().out
    own = {row.id for row in held_out}
    assert len(shown) == 6
    assert any(view.demonstrations for view in shown)
    assert not own & {solved.id for view in shown for solved in view.demonstrations}


BM25 = "nexttoken.inference.retrieval.bm25.BM25"


def test_dialogues_are_scored_answer_by_answer_whatever_they_were_trained_on(dialogue, repository):
    fold = dialogue / "dialogue" / "small" / "fold0"
    oof = pd.read_csv(fold / "oof.csv", dtype={"id": str, "row": str})
    assert oof["row"].nunique() == 12
    assert (oof.groupby("row").size() == 11).all()  # eleven answers of each dialogue
    assert json.loads((fold / "metrics.json").read_text())["num_examples"] == len(oof)
    counts = json.loads((fold / "transforms.json").read_text())
    assert counts["windows"] == {"num_before": 22, "num_after": 22}  # 12 train and 10 dev rows, after the choice
    assert len(pd.read_csv(fold / "tokens.csv")) == 22
    run = LoadedRun.load(RunFolder(dialogue / "dialogue" / "small"))
    assert {row.id for row in run.held_out(run.folds[0])} == set(oof["row"])
    asked = lines(repository / "input" / "sample-dialogue" / "test.jsonl")
    assert len(predict(dialogue)) == len(asked)


def test_a_notebook_writes_beside_a_run_that_is_read_only(instruct, tmp_path, monkeypatch):
    folder = instruct / "instruct" / "small"
    run = load_run(folder, written=tmp_path / "written")
    rows = run.held_out(run.folds[0])[:2]
    # whoever runs the tests may write anywhere
    monkeypatch.setattr("nexttoken.runs.loaded.os.access", lambda *_: False)
    assert run.generate(run.folds[0], rows).ids == tuple(row.id for row in rows)
    assert len(list((tmp_path / "written").iterdir())) == 1
    with pytest.raises(UserError, match=r"is read-only.*load_run\(..., written="):
        load_run(folder).generate(run.folds[0], rows)


def test_a_loaded_run_shows_solved_rows_and_never_those_it_is_scored_on(instruct):
    retriever = {"_target_": BM25, "corpus": "unused", "index_dir": str(instruct / "index")}
    changes = Changes({"_target_": "nexttoken.inference.Demonstrations", "retriever": {}}, retriever=retriever)
    run = LoadedRun.load(RunFolder(instruct / "instruct" / "small"), changes=changes)
    held_out = run.held_out(run.folds[0])
    own, whole = ({row.id for row in run.inference(run.folds[0], *asked).pool} for asked in ((), ([Example("x", {})],)))
    assert own
    assert whole == own | {row.id for row in held_out}
    assert own.isdisjoint(row.id for row in held_out)


def test_ways_of_asking_have_files_and_ledger_lines_of_their_own(instruct, tmp_path):
    """Nothing is overwritten, nothing is written into the run, and the score stands only beside the run's own way."""
    folder = instruct / "instruct" / "small"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    places = (f"run={folder}", f"submissions_dir={tmp_path / 'submissions'}", "generation.max_new_tokens=2")
    asking = ("inference=demonstrations", "retriever=bm25", f"retriever.index_dir={tmp_path / 'index'}")
    ways = [places[:2], places, (*places, *asking), (*places, *asking, "inference.num_demonstrations=1")]
    paths = [pipeline.predict(composed("predict", *way)) for way in ways]
    assert paths[0].name == "small.jsonl"
    assert paths[1].name.startswith("small_max_new_tokens-2_")
    assert paths[2].name.startswith("small_Demonstrations-BM25-max_new_tokens-2_")
    assert len(set(paths)) == 4
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    ledger = read_ledger(tmp_path / "submissions" / "ledger.csv")
    assert [line.file for line in ledger] == [path.name for path in paths]
    score = json.loads((folder / "fold0" / "metrics.json").read_text())["log_loss"]
    assert [line.oof_log_loss for line in ledger] == [pytest.approx(score), None, None, None]
    assert [line.asked for line in ledger[:2]] == ["", "max_new_tokens-2"]


def test_open_answers_have_no_table_of_probabilities(instruct):
    with pytest.raises(UserError, match="answers in text"):
        load_run(instruct / "instruct" / "small").predict(pd.DataFrame())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=instruct", "prompt=instruction"], "needs labels.*use head=text, prompt=instruct"),
        (["task=instruct", "head=label"], "needs labels.*use head=text"),
        (["task=instruct", "train_transforms=both_orders"], "needs labels, and the task's answers are open texts"),
        (["task=instruct", "inference=rotated"], "needs labels, and the task's answers are open texts"),
        (["task=quiz", "inference=replies"], "needs texts, and the task's answers are labels"),
        (["generate_rows=3"], "generate_rows is for open answers"),
        (["task=instruct", "fit.text_epochs=1"], "open answers have none"),
        (["task=dialogue", "inference.num_utterances=3"], "expected an even number"),
        (["task=instruct", "prompt.chat=true"], "no chat template; name one"),
        (["task=instruct", "generation.top_p=2"], "generation.top_p=2 is not accepted"),
        (["task=instruct", "prompt=dialogue"], "needs dialogues.*are no dialogues"),
        (["task=instruct", "inference=replies"], "needs dialogues.*are no dialogues"),
        (["task=instruct", "transforms=persona_short"], "needs dialogues.*are no dialogues"),
        (["task=instruct", "train_transforms=windows_all_2"], "needs dialogues.*are no dialogues"),
        (["task=dialogue", "prompt=instruct"], "needs shown utterances, .*use prompt=dialogue"),
        (["task=instruct", "generate_rows=2", "trainer.devices=2"], "answers are written by one process"),
        (["task=instruct", "generate_rows=2", "max_tokens=12"], "max_new_tokens leaves nothing of max_tokens"),
        (["task=instruct", "generate_rows=2", "max_tokens=16"], "does not hold the prompt without its fields"),
        (["task=instruct", "prompt=summary_ja"], "'length' is undefined"),
    ],
)
def test_what_cannot_work_together_is_refused_at_once(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, *overrides)
    assert not list(tmp_path.rglob("metrics.json"))


@pytest.mark.slow
def test_fine_tuning_that_is_killed_continues_exactly(server, tmp_path, repository):
    """Packed rows, dropout and embedding noise included."""
    overrides = ["task=instruct", f"input_dir={repository / 'input' / 'sample-instruct'}"]
    overrides += ["fit.neftune_alpha=5", "model.scratch.vocab_size=400", "batch_tokens=200", "logger=none"]
    folds = {name: tmp_path / name / "instruct" / "x" / "fold0" for name in ("whole", "step", "model")}
    assert run(server, tmp_path / "whole", "none", 0, *overrides) == 0
    for moment, number in (("step", 4), ("model", 1)):
        assert run(server, tmp_path / moment, moment, number, *overrides) == -signal.SIGKILL
        assert not (folds[moment] / "metrics.json").exists()
        assert run(server, tmp_path / moment, "none", 0, *overrides) == 0
        for name in ("model/model.safetensors", "oof.csv", "curve.csv", "tokens.csv"):
            assert (folds[moment] / name).read_bytes() == (folds["whole"] / name).read_bytes()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {tests!r} + "/runs"]
from test_open_runs import predict
predict(Path({output!r}), "batch_tokens=40", "name=killed")
"""


@pytest.mark.slow
def test_a_prediction_that_is_killed_goes_on_where_it_stopped(instruct, tmp_path, repository):
    """At any row: the journal only grows, no row is written twice, and the submission is the undisturbed one."""
    undisturbed = predict(instruct, "batch_tokens=4000", "name=whole")
    written = instruct / "submissions" / "written"
    for path in written.iterdir():
        path.unlink()
    code = KILLED.format(tests=str(repository / "tests"), output=str(instruct))
    for moment in (1, 8, 30):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, cwd=repository)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if sum(len(path.read_bytes().splitlines()) for path in written.iterdir()) > moment:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.002)
        process.wait()
    assert predict(instruct, "batch_tokens=40", "name=killed") == undisturbed
    (journal,) = written.iterdir()
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys)) == len(undisturbed)


def test_within_a_time_every_row_has_a_text_from_the_start(instruct, monkeypatch):
    from nexttoken.engine.generation.writer import GeneratedText
    from nexttoken.runs.timed.texts import TimedTexts

    whole = predict(instruct)
    assert predict(instruct, "within=10m", "name=timed") == whole
    with pytest.raises(SystemExit) as ended:
        predict(instruct, "within=1s", "name=late")
    assert ended.value.code == 3
    late = lines(instruct / "submissions" / "late.jsonl")
    assert [row["task_id"] for row in late] == [row["task_id"] for row in whole]
    (common,) = {row["output"] for row in late}
    run, states = LoadedRun.load(RunFolder(instruct / "instruct" / "small")), []
    assert common in {example.answer for example in run.parts.task.read("train")}
    examples = run.parts.task.read("test")
    timed = TimedTexts(run, examples, Deadline(600), lambda timed, _: states.append(timed.predictions.texts))
    monkeypatch.setattr("nexttoken.runs.timed.texts.SHARE_OF_WRITING", 1e9)  # after every answer

    def generate(self, fold, rows, seen):
        for row in rows[:3]:
            seen(GeneratedText(row.id, f"text {row.id}", 2, True, 0.1))
        timed.deadline = Deadline(0)
        raise TimeIsUp

    monkeypatch.setattr(LoadedRun, "generate", generate)
    timed.finish()
    assert [sum(text != common for text in texts) for texts in states] == [0, 1, 2, 3, 3]
    assert timed.words == f"the most common answer {1 - 3 / len(examples):.0%}"
