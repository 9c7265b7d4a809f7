"""The label audit over real tokenizers: it agrees with the libraries they come from, and the docs show what it says."""

import subprocess
import sys
from functools import cache
from itertools import chain
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from nexttoken.commands.labels import LabelsArguments, main, situations_table
from nexttoken.engine.label_scores import collate, sequence_scores
from nexttoken.errors import UserError
from nexttoken.prompts.encode_labels import Encoded, Encoder
from nexttoken.prompts.label_audit import CHAT, MAX_TOKENS, Audit, audit_situations
from support.layouts import tokens_before
from support.real_tokenizers import BUILDERS, Reference, byte_level

SCRATCH = "scratch, learnt from the embedded sample"
STORIES = "stories260k"


@cache
def audits(name: str) -> list[Audit]:
    return audit_situations(BUILDERS[name]().tokenizer)


def read_by_hand(encoded: Encoded, number: int, label: int) -> list[int]:
    """Prompt and label as the model is given them."""
    return [*encoded.prompts[number].token_ids.tolist(), *encoded.labels.continuations[label]]


@pytest.mark.parametrize("name", BUILDERS)
def test_label_tokens_are_those_of_the_whole_text(name):
    """Ids by the tokenizer's own library, a row at a time, without looking for a prefix."""
    built = BUILDERS[name]()
    opening = [built.tokenizer.bos_token_id] * bool(built.tokenizer.bos_token)
    for audit in audits(name):
        if audit.tokens is None:
            continue
        encoder = Encoder(built.tokenizer, audit.situation.prompt, MAX_TOKENS)
        encoded = encoder.encode(audit.situation.examples)
        assert encoded.labels == audit.tokens
        for number, prompt in enumerate(encoded.prompts):
            for position, label in enumerate(audit.situation.labels):
                ids = read_by_hand(encoded, number, position)
                if audit.situation.after != CHAT:
                    assert ids == opening + built.ids(prompt.text + label)
                    assert decode(built, ids) == prompt.text + label
                else:
                    assert ids == encoder.ids(prompt.text + label)
                    assert decode(built, ids).removeprefix(decode(built, prompt.token_ids)).lstrip() == label.lstrip()


def decode(built: Reference, ids) -> str:
    """The text of `ids`; some tokenizers put a space in front of every text."""
    return built.tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" ")


@pytest.mark.parametrize("name", [name for name in BUILDERS if name.startswith("Mistral")])
def test_a_chat_ends_where_the_models_own_library_ends_it(name):
    built = BUILDERS[name]()
    assert built.chat_ids is not None
    situations = [audit.situation for audit in audits(name) if audit.situation.after == CHAT]
    assert len(situations) == 8
    for situation in situations:
        encoded = Encoder(built.tokenizer, situation.prompt, MAX_TOKENS).encode(situation.examples)
        for row, prompt in zip(situation.examples, encoded.prompts, strict=True):
            assert prompt.token_ids.tolist() == built.chat_ids(row.fields["text"][0])


@pytest.mark.parametrize("name", BUILDERS)
def test_scores_read_exactly_these_tokens(name):
    """Logits that depend on every token before them: a wrong position, context or id gives another sum."""
    tokenizer = BUILDERS[name]().tokenizer
    for audit in audits(name):
        if (tokens := audit.tokens) is None:
            continue
        encoded = Encoder(tokenizer, audit.situation.prompt, MAX_TOKENS).encode(audit.situation.examples)
        size = 1 + max(chain(*tokens.continuations))
        prompt = encoded.prompts[-1].token_ids.tolist()
        whole = [log_probability(prompt, list(ids), size) for ids in tokens.continuations]
        longer = [
            [other for other, theirs in enumerate(tokens.continuations) if theirs != ids and theirs[: len(ids)] == ids]
            for ids in tokens.continuations  # "10" goes on from "1": what is taken off it
        ]
        expected = [
            torch.log1p(-sum(torch.exp(whole[k] - own) for k in others)) + own if others else own
            for own, others in zip(whole, longer, strict=True)
        ]
        for packs in (False, True):
            batch = collate(encoded.prompts[-1:], tokens.contexts, packs)
            read = [logits_after(tokens_before(batch.layout, place), size) for place in batch.reads.tolist()]
            scores = sequence_scores(torch.stack(read)[batch.places], tokens)
            torch.testing.assert_close(scores, torch.stack(expected)[None])


def logits_after(prefix: list[int], size: int) -> torch.Tensor:
    return 3 * torch.sin(torch.arange(size, dtype=torch.float64) * (1 + hash(tuple(prefix)) % 9973))


def log_probability(prompt: list[int], ids: list[int], size: int) -> torch.Tensor:
    steps = [logits_after(prompt + ids[:step], size).log_softmax(-1)[token] for step, token in enumerate(ids)]
    return torch.stack(steps).sum()


def test_every_situation_is_tried():
    """Five ends with a chat template and four without, four sets of labels, two languages."""
    assert len(audits("byte-level BPE, trained here")) == 5 * 4 * 2
    built = byte_level(add_prefix_space=False, merge_digits=False).tokenizer
    template, built.chat_template = built.chat_template, None
    assert len(audit_situations(built)) == 4 * 4 * 2
    built.chat_template = template


@pytest.mark.parametrize("name", BUILDERS)
def test_the_docs_show_the_table(repository, name):
    assert section(name, audits(name)) in docs(repository)


def test_a_model_that_is_not_there_does_not_stop_the_others(repository, monkeypatch, capsys, tmp_path):
    """The other one is built from scratch, as in training; its table is the one in the docs."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    path = tmp_path / "audit.md"
    with pytest.raises(UserError, match="1 of 2 models were refused"):
        main(["model=llama3_8b,scratch", "model.revision=no-such-revision", f"markdown={path}"])
    output = capsys.readouterr()
    (line,) = output.err.splitlines()
    name = "model=llama3_8b model.revision=no-such-revision"
    assert line.startswith(f"{name}: model 'meta-llama/Meta-Llama-3-8B-Instruct' could not be loaded: ")
    assert "built from the training text: 951 tokens" in output.out
    _, table = path.read_text(encoding="utf-8").split("## model=scratch model.revision=no-such-revision\n\n")
    assert f"## {SCRATCH}\n\n{table}" in docs(repository)


def test_the_docs_show_the_table_of_stories260k(repository, stories):
    assert section(STORIES, audit_situations(stories.tokenizer)) in docs(repository)


def docs(repository) -> str:
    return (repository / "docs" / "label-audit.md").read_text(encoding="utf-8") + "\n"


def section(name: str, audits: list[Audit]) -> str:
    return f"## {name}\n\n{situations_table(audits)}\n\n"


@pytest.fixture
def folder(tmp_path) -> str:
    """A folder with a tokenizer and nothing else: there are no weights to load."""
    byte_level(add_prefix_space=False, merge_digits=True).tokenizer.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def test_both_tables_of_a_model_folder(repository, monkeypatch, capsys, tmp_path, folder):
    monkeypatch.chdir(repository)
    path = tmp_path / "audit.md"
    main([f"model.name_or_path={folder}", "prompt.answer_cue='### Answer: '", f"markdown={path}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder}: 480 tokens"
    assert lines[1].split() == ["label", "token", "ids", "pieces", "prompt", "stays", "a", "prefix"]
    assert [line.split()[0] for line in lines[2:5]] == ["'A'", "'B'", "'tie'"]
    assert [line.split()[2] for line in lines[2:5]] == ["'ĠA'", "'ĠB'", "'Ġtie'"]
    assert lines[5:7] == [
        "read in one pass, 1 of the prompt's last tokens re-joined",
        "64 rows, beginning-of-sequence tokens: 0, no chat template",
    ]
    table = situations_table(audits("byte-level BPE with merged digits, trained here"))
    assert "\n".join(lines[8:]).startswith(table)
    name = f"model.name_or_path={folder} prompt.answer_cue='### Answer: '"
    assert path.read_text(encoding="utf-8") == f"# Label audit\n\n## {name}\n\n{table}\n"


def test_labels_that_are_refused_do_not_hide_the_situations(repository, monkeypatch, capsys, folder):
    monkeypatch.chdir(repository)
    with pytest.raises(UserError, match="the labels' tokens depend on the row"):
        main([f"model.name_or_path={folder}", "prompt.answer_cue=''", "prompt.user='{{ response_a[0][:-1] }}'"])
    assert "| line break " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("fit.learning_rte=1", "unknown key 'fit.learning_rte'; did you mean 'fit.learning_rate'?"),
        ("model=scrach", "model=scrach is not one of its choices; did you mean 'scratch'?"),
        ("model.name_or_path=/nowhere/x", "the model '/nowhere/x' is not a folder"),
        ("input_dir=/nowhere", "/nowhere/train.csv cannot be read"),
        ("markdown=", "argument 'markdown=' has no value"),
    ],
)
def test_mistakes_are_one_line(repository, monkeypatch, argument, line):
    monkeypatch.chdir(repository)
    monkeypatch.setattr(sys, "argv", ["labels.py"])
    with pytest.raises(UserError) as error:
        main([argument])
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_help_and_a_missing_configuration_are_answered(tmp_path):
    assert run(tmp_path, "--help").stdout.startswith("Show the tokens that spell the labels")
    done = run(tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "conf/train.yaml is not there; run the command where train.py and conf/ are" in done.stderr


def run(folder, *arguments: str) -> subprocess.CompletedProcess:
    call = [sys.executable, "-m", "nexttoken", "labels", *arguments]
    return subprocess.run(call, capture_output=True, text=True, cwd=folder)


def test_models_are_told_apart_from_overrides():
    given = LabelsArguments.parse(["model=a,b", "fold=1", "markdown=x.md"])
    assert given.overrides_by_model == [("model=a", "fold=1"), ("model=b", "fold=1")]
    assert given.markdown == Path("x.md")
    assert LabelsArguments.parse(["prompt=conversation"]).overrides_by_model == [("prompt=conversation",)]
