"""The gate's command: from both answers to every held-out question to a table, a gate for predict.py, and a picture."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from nexttoken.commands.gate import GateArguments, main, report
from nexttoken.commands.gate_answers import answer_both_ways, read_rows, trial_of
from nexttoken.data.files import write_json
from nexttoken.data.folds import Folds, save_folds
from nexttoken.errors import UserError
from nexttoken.inference import ConfidenceGated, Inference
from nexttoken.inference.gate import Gate, Trial, decide
from nexttoken.inference.retrieval.search import Search
from nexttoken.runs.asking import Asking
from nexttoken.runs.folder import FoldFolder, RunFolder
from nexttoken.runs.loaded import LoadedRun
from nexttoken.runs.records import read_gate
from nexttoken.types import Example, LabelPredictions, Passage
from support.commands import refusal
from support.composed import config_of
from support.finished_runs import unseal
from support.tables import whole

QUIZ = SimpleNamespace(name="accuracy")  # the metric of a task


def trial(num_rows: int = 240) -> Trial:
    rng = np.random.default_rng(0)
    labels, known = rng.integers(0, 3, num_rows), rng.random(num_rows) < 0.5

    def answer(strength: np.ndarray) -> np.ndarray:
        weights = np.exp(rng.normal(size=(num_rows, 3)) + np.eye(3)[labels] * strength[:, None])
        return weights / weights.sum(axis=1, keepdims=True)

    rows = np.arange(num_rows)
    passes = answer(np.where(known, 5.0, 0.0)), answer(np.full(num_rows, 4.0))
    ids = tuple(f"{row:05d}" for row in rows)
    tokens = rng.integers(50, 100, (2, num_rows))
    return Trial(ids, rows % 2, rows, labels, *passes, rng.random(num_rows) < 0.9, *rng.random((3, num_rows)), *tokens)


def frame_of(asked: Trial) -> pd.DataFrame:
    """The rows of gate.csv."""
    columns = {"id": asked.ids, "fold": asked.folds, "group": asked.groups, "label": asked.labels, "fold_mark": "0012"}
    costs = ("first_seconds", "search_seconds", "second_seconds", "first_tokens", "second_tokens")
    columns |= {name: getattr(asked, name) for name in ("found", *costs)}
    for name in ("first", "second"):
        columns |= {f"{name}_p_{option}": probs for option, probs in enumerate(getattr(asked, name).T)}
    return pd.DataFrame(columns)


def given(out: Path, *arguments: str) -> GateArguments:
    return GateArguments.parse(["run=output/quiz/x", f"out={out}", *arguments])


def test_the_report_says_what_every_policy_is_worth(tmp_path):
    asked = trial()
    text, _ = report(asked, {0: Gate(0.6, 0.2), 1: Gate(0.6, 0.2, 2.0)}, given(tmp_path), keep_confident=True)
    table = whole(text).splitlines()[:7]
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in table}
    assert list(rows)[2:] == [
        "never",
        "always",
        "always, the surer answer taken",
        "gated (the run's thresholds)",
        "gated (chosen out of fold)",
    ]
    right = (asked.first.argmax(axis=1) == asked.labels).mean()
    assert rows["never"][0] == f"{right:.1%}"
    assert [rows[name][2] for name in ("never", "always")] == ["0.0%", "100.0%"]
    assert rows["always"][-1] == ""
    assert f"passages were found for {asked.found.mean():.1%}" in text


def test_the_report_leaves_a_gate_and_a_picture(tmp_path):
    asked = trial()
    report(asked, {}, given(tmp_path, "max_share=0.4"), keep_confident=False)
    gate = read_gate(tmp_path / "gate.json")
    assert not gate.keep_confident
    assert 0.05 < gate.unsure(asked.first).mean() <= 0.4
    saved = json.loads((tmp_path / "gate.json").read_text())
    assert saved["chosen"]["max_share"] == 0.4
    assert set(saved["chosen"]["gates_of_the_others"]) == {"0", "1"}
    assert set(saved["outcomes"]) == {"never", "always", "gated (chosen out of fold)"}
    assert saved["outcomes"]["never"]["share_searched"] == 0
    assert imread(tmp_path / "gate.png").std() > 0.05


def test_rows_come_back_as_they_were_written(tmp_path):
    asked = trial(30)
    frame_of(asked).to_csv(tmp_path / "gate.csv", index=False)
    frame = read_rows(tmp_path / "gate.csv")
    assert frame["fold_mark"].unique().tolist() == ["0012"]
    again = trial_of(frame)
    assert again.ids == asked.ids
    for one in fields(Trial):
        assert np.array_equal(getattr(again, one.name), getattr(asked, one.name)), one.name


@dataclass(frozen=True)
class Notes:
    """Finds the answer for the questions that it knows."""

    texts: Mapping[str, str]

    def search(self, queries: Sequence[str]) -> list[list[Passage]]:
        return [[Passage(self.texts[query])] if query in self.texts else [] for query in queries]


@dataclass(frozen=True)
class Reader:
    """Answers what a passage says, and otherwise the first option, half-heartedly."""

    asked: list[int]
    environment = MappingProxyType({"device": "cpu"})
    prompts: list = field(default_factory=list)

    def __call__(self, examples: Sequence[Example]) -> LabelPredictions:
        self.asked.append(len(examples))
        probs = np.tile([0.4, 0.3, 0.3], (len(examples), 1))
        for row, example in enumerate(examples):
            if texts := example.fields.get("passages"):
                probs[row] = np.where(np.array(example.fields["options"]) == texts[0], 0.8, 0.1)
        ids = tuple(example.id for example in examples)
        self.prompts.extend(SimpleNamespace(id=one, token_ids=range(7)) for one in ids)
        return LabelPredictions(ids, probs, {"seconds": np.full(len(examples), 0.01)})


@dataclass(frozen=True)
class Run:
    """The part of a loaded run that the command uses, with two folds of six questions."""

    folder: RunFolder
    parts: SimpleNamespace
    search: Search
    asked: list[int]
    numbers: tuple[int, ...] = (0, 1)

    @property
    def folds(self) -> list[FoldFolder]:
        return [self.folder.fold(number) for number in self.numbers]

    def held_out(self, fold: FoldFolder) -> list[Example]:
        rows = range(12)[int(fold.path.name[-1]) :: len(self.numbers)]
        options = ("red", "green", "blue")
        return [Example(f"{row:03d}", {"question": (f"{row}?",), "options": options}, row % 3) for row in rows]

    def answerer(self, fold: FoldFolder) -> Reader:
        return Reader(self.asked)


@pytest.fixture
def asked_run(tmp_path) -> Run:
    folder = RunFolder(tmp_path / "run")
    for number in (0, 1):
        folder.fold(number).path.mkdir(parents=True)
        folder.fold(number).config_path.write_text("name: x\n")
        folder.fold(number).save_metrics({"fold": number})
    rows = np.arange(12)
    save_folds(Folds(tuple(f"{row:03d}" for row in rows), rows // 2 + 7, rows % 2), folder.path / "folds.csv")
    search = Search(Notes({f"{row}?": ("red", "green", "blue")[row % 3] for row in range(8)}))
    inference: Inference = ConfidenceGated(search)
    classes = ("0", "1", "2")
    return Run(
        folder, SimpleNamespace(inference=inference, task=SimpleNamespace(classes=classes, metrics=[QUIZ])), search, []
    )


def test_every_question_is_asked_both_ways_by_its_own_fold(asked_run, tmp_path):
    asked = answer_both_ways(asked_run, tmp_path / "gate.csv")
    assert asked_run.asked == [6, 4, 6, 4], "the gate itself does not decide who is asked; without a hit nothing is"
    assert asked.folds.tolist() == [0] * 6 + [1] * 6
    assert [int(row) for row in asked.ids] == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]
    assert asked.groups.tolist() == [int(row) // 2 + 7 for row in asked.ids]
    assert asked.found.tolist() == [int(row) < 8 for row in asked.ids]
    assert (asked.second.argmax(axis=1) == asked.labels)[asked.found].all()
    assert (asked.second == asked.first)[~asked.found].all()
    assert (asked.second_seconds > 0).tolist() == asked.found.tolist()
    assert (asked.first_tokens == 7).all()
    assert asked.second_tokens.tolist() == (7 * asked.found).tolist()


def test_a_kill_while_one_fold_is_asked_keeps_the_answers_of_the_others(asked_run, tmp_path, monkeypatch):
    run, path = replace(asked_run, numbers=(0, 1, 2)), tmp_path / "gate.csv"
    shutil.copytree(run.folds[1].path, run.folds[2].path)
    answer_both_ways(run, path)
    for fold in run.folds[:2]:
        fold.save_metrics({"fold": fold.path.name, "seconds": 2.0})
    run.asked.clear()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "answerer", killed_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            answer_both_ways(run, path)
    assert len(run.asked) == 2, "fold 0, both ways"
    asked = answer_both_ways(run, path)
    assert len(run.asked) == 4, "fold 0 and fold 2 had their answers already"
    assert asked.folds.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def killed_at_the_second(run: Run, fold: FoldFolder) -> Reader:
    if fold == run.folds[1]:
        raise KeyboardInterrupt
    return Reader(run.asked)


def test_answers_of_a_fold_that_is_gone_are_left_out(asked_run, tmp_path):
    path = tmp_path / "gate.csv"
    answer_both_ways(asked_run, path)
    asked = answer_both_ways(replace(asked_run, numbers=(0,)), path)
    assert set(asked.folds) == {0}


def test_a_fold_is_asked_once_unless_it_was_trained_again(asked_run, tmp_path, capsys):
    path = tmp_path / "gate.csv"
    first = answer_both_ways(asked_run, path)
    asked_run.asked.clear()
    again = answer_both_ways(asked_run, path)
    assert asked_run.asked == []
    assert all(np.array_equal(getattr(first, one.name), getattr(again, one.name)) for one in fields(Trial))
    asked_run.folds[1].save_metrics({"fold": 1, "seconds": 2.0})
    assert answer_both_ways(asked_run, path).ids == first.ids
    assert asked_run.asked == [6, 4], "only the fold that was trained again"
    answer_both_ways(asked_run, path, again=True)
    assert asked_run.asked == [6, 4] * 3
    assert "fold 0: 6 questions asked before" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "id,fold\n1,0\n"])
def test_a_broken_table_is_one_line(tmp_path, text):
    (tmp_path / "gate.csv").write_text(text)
    with pytest.raises(UserError, match=r"gate.csv cannot be read \(.*\); again=true asks the questions again"):
        read_rows(tmp_path / "gate.csv")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "run= is missing; write run=output"),
        (["run=x", "max_share=50"], "max_share='50' is not accepted: input should be less than or equal to 1"),
        (["run=x", "tolerance=nan"], "tolerance='nan' is not accepted"),
        (["run=x", "again=perhaps"], "again='perhaps' is not accepted: input should be a valid boolean"),
        (["run=x", "max_shar=1"], "did you mean 'max_share'"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, line):
    with pytest.raises(UserError, match=line):
        main(arguments)


def test_the_command_starts_without_torch_and_answers_on_one_line(capsys):
    code = "import sys, nexttoken.commands.gate; print('torch' in sys.modules, 'pandas' in sys.modules)"
    command = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert command.stdout.split() == ["False", "False"]
    assert "nowhere has no finished fold" in refusal(capsys, "gate", "run=nowhere")


def test_an_infinite_tolerance_never_searches(tmp_path):
    report(trial(60), {}, given(tmp_path, "tolerance=inf"), keep_confident=True)
    assert replace(read_gate(tmp_path / "gate.json"), temperature=1.0) == Gate(0, 0)


@pytest.fixture(scope="module")
def quiz_run(tmp_path_factory) -> Path:
    """A fold of a generated quiz whose run gates with BM25, trained for two epochs."""
    from nexttoken import pipeline
    from samples.quiz import draw_quizzes

    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("output")
    quizzes = draw_quizzes(150, np.random.default_rng(0))
    rows = [
        {"id": f"{index:04d}", "question": one.question, "options": one.options, "answer": one.answer}
        for index, one in enumerate(quizzes)
    ]
    (data / "train.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    (data / "corpus").mkdir()
    (data / "corpus" / "notes.txt").write_text("\n\n".join(one.passage for one in quizzes if one.passage))
    overrides = [
        "task=quiz",
        "retriever=bm25",
        "inference=gated_retrieval",
        "inference.min_top1=0.45",
        "name=tiny",
        "limit_rows=40",
    ]
    overrides += ["inference.min_margin=0", "logger=none", "fold=0", "trainer.max_epochs=2", "max_tokens=192"]
    overrides += [
        "model.scratch.hidden_size=32",
        "model.scratch.num_layers=1",
        "model.scratch.vocab_size=400",
        "split.num_folds=3",
        "split.dev_fraction=0.2",
    ]
    pipeline.train(config_of("train", *overrides, f"input_dir={data}", f"output_dir={output}"))
    return output / "quiz" / "tiny"


def test_the_runs_own_gate_is_answered_as_the_run_answered(quiz_run, tmp_path, capsys):
    """Asked both ways and gated afterwards, the held-out questions get the probabilities of oof.csv."""
    main([f"run={quiz_run}", f"out={tmp_path}"])
    assert "gated (the run's thresholds)" in capsys.readouterr().out
    asked = trial_of(read_rows(tmp_path / "gate.csv"))
    temperature = json.loads((quiz_run / "fold0" / "inference.json").read_text())["temperature"]
    decision = decide(asked, Gate(0.45, 0.0, temperature))
    assert 0.05 < decision.searched.mean() < 0.95, "the test says nothing where all rows are decided alike"
    assert 0 < decision.taken.sum() < decision.searched.sum()
    oof = pd.read_csv(quiz_run / "fold0" / "oof.csv", dtype={"id": str})
    assert oof["id"].tolist() == list(asked.ids)
    expected = np.where(decision.taken[:, None], asked.second, asked.first)
    assert np.abs(oof.iloc[:, 3:].to_numpy() - expected).max() < 1e-5
    assert (expected[:, 2:] == 0).any(), "absent options"
    rows = pd.read_csv(quiz_run / "fold0" / "rows.csv")
    assert rows["searched"].tolist() == decision.searched.tolist()


def test_predictions_use_the_thresholds_that_were_chosen(quiz_run):
    run = LoadedRun.load(RunFolder(quiz_run))
    write_json({"min_top1": 0.3, "min_margin": 0.1, "temperature": 1.3, "keep_confident": True}, quiz_run / "gate.json")
    assert run.inference(run.folds[0]).gate == Gate(0.3, 0.1, 1.3)
    (quiz_run / "gate.json").unlink()
    assert run.inference(run.folds[0]).gate.min_top1 == 0.45


def test_a_run_that_is_not_gated_is_told_which_inference_uses_the_thresholds(quiz_run, tmp_path, capsys):
    def promise(**inference: object) -> str:
        path = quiz_run / "fold0" / "config.yaml"
        saved = path.read_text()
        try:
            config = yaml.safe_load(saved)
            config["inference"] = inference or config["inference"]
            path.write_text(yaml.safe_dump(config))
            unseal(path.parent)
            main([f"run={quiz_run}", f"out={tmp_path}"])
        finally:
            path.write_text(saved)
        return capsys.readouterr().out

    assert "predict.py uses these thresholds" not in promise()
    line = promise(_target_="nexttoken.inference.Once").splitlines()[-1]
    assert line == "predict.py uses these thresholds with inference=gated_retrieval"


def test_the_gates_own_out_of_fold_answers_are_the_score_of_asking_with_it(quiz_run, tmp_path, capsys):
    run = RunFolder(shutil.copytree(quiz_run, tmp_path / "tiny"))
    main([f"run={run.path}"])
    (way,) = run.ways
    assert f"out-of-fold answers and scores: {way.path}" in capsys.readouterr().out
    asking = Asking.of(LoadedRun.load(run))
    saved, outcome = way.fold(0).metrics(), json.loads((run.path / "gate.json").read_text())["outcomes"]
    assert (asking.way, asking.folder, asking.scores["oof_log_loss"]) == ("gate", way, saved["log_loss"])
    assert saved["accuracy"] == pytest.approx(outcome["gated (chosen out of fold)"]["accuracy"])
    assert saved["share_asked_again"] <= 0.6


def test_a_run_without_a_retriever_is_one_line(quiz_run, tmp_path):

    copy = shutil.copytree(quiz_run, tmp_path / "tiny")
    path = copy / "fold0" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    for node in (config, config["search"]):
        node["retriever"] = {"_target_": "nexttoken.inference.retrieval.search.Nothing"}
    config["inference"] = {"_target_": "nexttoken.inference.Once"}
    path.write_text(yaml.safe_dump(config))
    unseal(path.parent)
    with pytest.raises(UserError, match=r"without a retriever, .* train it with one: .*retriever=bm25") as error:
        main([f"run={copy}"])
    assert "\n" not in str(error.value)
