"""A run that is used elsewhere, with its data in another place or another retriever; what training again removes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nexttoken import pipeline
from nexttoken.data.folds import Folds
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.search import Nothing
from nexttoken.runs.config import Changes
from nexttoken.runs.folder import FoldFolder, RunFolder, describe_differences, hash_examples
from nexttoken.runs.loaded import LoadedRun
from nexttoken.settings import PredictSettings
from nexttoken.types import Example
from support.composed import composed
from support.finished_runs import unseal
from support.training import composed as composed_entry

GATED = ("task=quiz", "inference=gated_retrieval", "retriever=bm25")
RECORDED = "nexttoken.inference.retrieval.recorded.Recorded"


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    (folder / "corpus").mkdir(parents=True)
    (folder / "corpus" / "notes.txt").write_text("The house of Ada is red.\n\nThe house of Bob is blue.\n")
    rows = [
        {"id": f"{number}", "question": f"What colour is the house of {name}?", "options": ["red", "blue"], "answer": 0}
        for number, name in enumerate(("Ada", "Bob"))
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def finished(data: Path, *overrides: str) -> RunFolder:
    """A run whose only fold is finished, as far as a folder shows it; nothing was trained."""
    run = RunFolder(data.parent / "output" / "quiz" / "x")
    places = (f"input_dir={data}", f"output_dir={data.parent / 'output'}")
    run.fold(0).claim(composed(*overrides, *places) | {"name": "x"}, "")
    run.fold(0).save_metrics({"log_loss": 1.0, "num_examples": 2})
    unseal(run.fold(0).path)  # the tests edit it
    return run


@pytest.mark.parametrize(
    "overrides",
    [
        GATED,
        ("task=quiz", "inference=retrieval", "retriever=bm25"),
        (
            *GATED,
            "inference._target_=nexttoken.inference.WithPassages",
            "~inference.min_top1",
            "~inference.min_margin",
            "~inference.keep_confident",
        ),
    ],
)
def test_input_dir_reaches_the_retriever(data, overrides):
    run = finished(data, *overrides)
    moved = data.rename(data.with_name("moved"))
    loaded = LoadedRun.load(run, str(moved))
    examples = loaded.parts.task.read("train")
    for search in (loaded.search, loaded.parts.inference.search):
        assert search.retriever.corpus == f"{moved}/corpus"
        assert search.find(examples).examples[1].fields["passages"][0] == "The house of Bob is blue."


def test_a_corpus_outside_the_data_stays_where_it_is(data):
    notes = data.parent / "data-2"  # begins with the name of the data's folder
    (data / "corpus").rename(notes)
    run = finished(data, *GATED, f"retriever.corpus={notes}")
    moved = data.rename(data.with_name("moved"))
    assert LoadedRun.load(run, f"{moved}/").search.retriever.corpus == str(notes)


def test_a_corpus_that_only_training_needed_may_be_gone(data):
    run = finished(data, "task=quiz", "retriever=bm25")
    (data / "corpus" / "notes.txt").unlink()
    (data / "corpus").rmdir()
    loaded = LoadedRun.load(run)
    assert loaded.parts.train_transforms == {}
    with pytest.raises(UserError, match="corpus"):
        _ = loaded.search


def record(path: Path) -> Path:
    query = "What colour is the house of Bob?"
    path.write_text(json.dumps({"query": query, "passages": ["It is green."]}) + "\n")
    return path


def test_another_retriever_answers_where_the_runs_own_cannot(data, tmp_path):
    run = finished(data, *GATED)
    (data / "corpus" / "notes.txt").unlink()
    node = {"_target_": RECORDED, "path": str(record(tmp_path / "found.jsonl"))}
    loaded = LoadedRun.load(run, changes=Changes(retriever=node))
    found = loaded.parts.inference.search.find(loaded.parts.task.read("train"))
    assert [example.fields["passages"] for example in found.examples] == [(), ("It is green.",)]
    assert loaded.search.retriever.path == node["path"]


@pytest.mark.parametrize("place", ["as in training", "moved", "data/inner"])
def test_the_other_retrievers_files_lie_where_the_data_lies(data, place):
    run = finished(data, *GATED)
    record(data / "passages.jsonl")
    overrides = ["retriever=recorded"]
    if place == "moved":
        overrides.append(f"input_dir={data.rename(data.with_name('moved'))}")
    if place == "data/inner":
        shutil.copytree(data, data.parent / "copy")
        overrides.append(f"input_dir={(data.parent / 'copy').rename(data / 'inner')}")
    chosen = composed(*overrides, name="predict")
    loaded = LoadedRun.load(run, chosen["input_dir"], changes=Changes(retriever=chosen["retriever"]))
    assert loaded.search.find(loaded.parts.task.read("train")).examples[1].fields["passages"] == ("It is green.",)


def test_predict_takes_another_retriever(data):
    run = finished(data, *GATED)
    config = composed_entry("predict", f"run={run.path}", "retriever=recorded", "retriever.path=nowhere.jsonl")
    with pytest.raises(UserError, match=r"nowhere\.jsonl cannot be read"):
        pipeline.predict(config)


def test_a_run_that_does_not_search_takes_no_retriever(data, tmp_path):
    run = finished(data, "task=quiz")
    node = {"_target_": RECORDED, "path": str(record(tmp_path / "found.jsonl"))}
    with pytest.raises(UserError, match=r"does not search.*retriever=.*inference=gated_retrieval") as error:
        LoadedRun.load(run, changes=Changes(retriever=node))
    assert "\n" not in str(error.value)


def test_a_base_for_a_model_of_ones_own_one_fold_and_broken_nodes_are_one_line(data, tmp_path):
    run = finished(data, "task=quiz")
    with pytest.raises(UserError, match=r"x has a model of its own, so base=\.\.\. has no use; leave it out$"):
        LoadedRun.load(run, base=str(tmp_path))
    with pytest.raises(UserError, match=rf"fold0 is one fold; expected the folder of its run, {run.path}$"):
        LoadedRun.load(RunFolder(run.path / "fold0"))
    path = run.path / "fold0" / "config.yaml"
    path.write_text(f"{path.read_text()}\ngeneration: null\n")
    with pytest.raises(UserError, match=r"config\.yaml has no usable 'generation'; train this fold again"):
        LoadedRun.load(run)


@pytest.mark.parametrize("name", ["retrieval", "gated_retrieval"])
def test_an_inference_that_searches_takes_the_runs_own_search_and_retriever_where_none_is_given(data, name):
    run = finished(data, "task=quiz", "retriever=bm25", "search.per_option=true")
    moved = data.rename(data.with_name("moved"))
    typed = composed(f"inference={name}", "search.num_passages=1", f"input_dir={moved}", name="predict")
    changes = Changes.of(PredictSettings(**typed))
    search = LoadedRun.load(run, str(moved), changes=changes).parts.inference.search
    assert (search.per_option, search.num_passages, search.retriever.corpus) == (True, 1, f"{moved}/corpus")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["inference=swap_averaged"], "inference=SwapAveraged needs pairs"),
        (["inference=retrieval"], "inference=WithPassages needs passages, and retriever=none finds none"),
        (["inference=demonstrations", "retriever=bm25"], "inference=Demonstrations needs texts"),
        (["search.num_passages=2"], r"does not search, so search.num_passages=\.\.\. has no use"),
        (["max_tokens=0"], "max_tokens=0 is not accepted"),
        (["generation.temperature=1"], "generation, engine and a fold's number are for open answers"),
        (["fold=0"], "generation, engine and a fold's number are for open answers"),
    ],
)
def test_a_way_of_asking_that_does_not_fit_is_refused_before_a_model_is_loaded(data, overrides, line):
    run = finished(data, "task=quiz")
    with pytest.raises(UserError, match=line) as error:
        pipeline.predict(composed_entry("predict", f"run={run.path}", *overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gone", ["retrieval.none.Nothing", "engine.heads.Gone", "Gone"])
def test_a_run_from_before_the_classes_moved_says_so(data, gone):
    run, target = finished(data, "task=quiz"), f"nexttoken.{gone}"
    config = run.fold(0).config()
    run.fold(0).claim({**config, "head": {"_target_": target}}, "")
    with pytest.raises(UserError, match=rf"{run.path} was trained before .*{target} is gone.*overwrite=true") as error:
        LoadedRun.load(run)
    assert "\n" not in str(error.value)


def test_a_run_without_search_loads_although_its_retriever_moved(data):
    run = finished(data, "task=quiz")
    config, moved = run.fold(0).config(), {"_target_": "nexttoken.inference.retrieval.none.Nothing"}
    run.fold(0).claim({**config, "retriever": moved, "search": {**config["search"], "retriever": moved}}, "")
    assert LoadedRun.load(run).search.retriever == Nothing()


def test_a_retriever_that_is_gone_can_be_replaced(data, tmp_path):
    run, gone = finished(data, *GATED), {"_target_": "nexttoken.Gone"}
    config = run.fold(0).config()
    search = {**config["search"], "retriever": gone}
    inference = {**config["inference"], "search": search}
    run.fold(0).claim({**config, "retriever": gone, "search": search, "inference": inference}, "")
    with pytest.raises(UserError, match=r"was trained before .*Gone is gone.*overwrite=true"):
        LoadedRun.load(run)
    node = {"_target_": RECORDED, "path": str(record(tmp_path / "found.jsonl"))}
    assert LoadedRun.load(run, changes=Changes(retriever=node)).search.retriever.path == node["path"]


def test_held_out_rows_are_those_that_the_fold_was_trained_beside(data):
    run = finished(data, *GATED)
    fold = run.fold(0)
    pd.DataFrame({"id": ["1"], "label": [0]}).to_csv(fold.path / "oof.csv", index=False)
    rows = LoadedRun.load(run).parts.task.read("train")
    fold.claim(fold.config(), hash_examples(rows))
    assert [row.id for row in LoadedRun.load(run).held_out(fold)] == ["1"]
    path = data / "train.jsonl"
    path.write_text(path.read_text().replace('"answer": 0', '"answer": 1'))
    with pytest.raises(UserError, match=r"other rows than .* was trained on; give the run's data: input_dir=") as error:
        LoadedRun.load(run).held_out(fold)
    assert "\n" not in str(error.value)


def folds_of(numbers: list[int]) -> Folds:
    return Folds(tuple("abcd"), np.arange(4), np.array(numbers))


def test_a_fold_that_is_trained_makes_what_the_folds_said_together_stale(data):
    run = finished(data, *GATED)
    config = run.fold(0).config()
    run.claim(1, config, "", folds_of([0, 1, 0, 1]), overwrite=False)
    (run.path / "gate.json").write_text("{}")
    with pytest.raises(UserError):
        run.claim(1, config, "", folds_of([1, 0, 1, 0]), overwrite=True)
    assert (run.path / "gate.json").exists(), "a refused command leaves everything in place"
    run.claim(1, config, "", folds_of([0, 1, 0, 1]), overwrite=False)
    assert not (run.path / "gate.json").exists()


def test_folds_may_differ_in_where_things_are_kept(tmp_path):
    def config(output_dir: Path) -> dict:
        return composed(*GATED, f"output_dir={output_dir}", f"input_dir={tmp_path}")

    one, other = config(Path("output")), config(tmp_path / "output")
    assert one["train_transforms"]["passages"]["search"] != other["train_transforms"]["passages"]["search"]
    assert describe_differences(one, other) == ""
    web = [composed("task=quiz", "retriever=web", f"output_dir={place}") for place in ("a", "b")]
    assert describe_differences(*web) == ""
    assert "retriever.num_hits: 5 -> 6" in describe_differences(one, composed(*GATED, "retriever.num_hits=6"))


def test_a_fold_knows_its_rows(tmp_path):
    rows = [Example("a", {"question": ("?",), "options": ("x", "y")}, 0, num_options=2)]
    fold = FoldFolder(tmp_path / "fold0")
    fold.claim({"name": "x"}, hash_examples(rows))
    assert fold.has_data(hash_examples(rows))
    assert not fold.has_data(hash_examples([]))


def test_a_models_own_code_runs_only_where_this_call_allows_it(data):
    run = finished(data, "task=quiz", "model.name_or_path=here")
    config = run.fold(0).config()
    run.fold(0).claim({**config, "model": {**config["model"], "trust_remote_code": True}}, "")
    assert not LoadedRun.load(run).parts.settings.model.trust_remote_code
    assert not LoadedRun.load(run, base="elsewhere").parts.settings.model.trust_remote_code
    assert LoadedRun.load(run, trust_remote_code=True).parts.settings.model.trust_remote_code
    assert LoadedRun.load(run, base="elsewhere", trust_remote_code=True).parts.settings.model.trust_remote_code
