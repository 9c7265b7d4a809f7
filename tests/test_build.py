"""Parts of a configuration that do not fit together are refused with the fix, and runs are named."""

import re
import unicodedata
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nexttoken.build import (
    FIXES,
    build,
    default_name,
    plain,
    refuse_unfit,
)
from nexttoken.data.contradictions import contradictions
from nexttoken.data.targets import declared, refuse_unasked_code
from nexttoken.errors import UserError, file_name
from support.composed import composed
from support.composed import settings as composed_settings

composed_once = cache(composed)
HEAD, OPEN_HEAD = "nexttoken.engine.heads.LabelSoftmax", "nexttoken.engine.heads.AnswerText"


@pytest.mark.parametrize(
    ("target", "name", "expected"),
    [
        (HEAD, "needs", {"labels"}),
        (HEAD, "offers", {"vocabulary"}),
        (OPEN_HEAD, "needs", {"texts"}),
        ("nexttoken.engine.heads.Classification", "offers", set()),
        (HEAD, "nothing", set()),
        ("tests.other.Head", "needs", set()),
        ("", "needs", set()),
    ],
)
def test_declared_sets_are_read_from_the_source(target: str, name: str, expected: set[str]) -> None:
    assert declared({"_target_": target}, name) == expected
    assert declared({}, name) == frozenset()


@given(st.text(max_size=300))
def test_a_name_that_is_accepted_is_one_folder_that_every_file_system_can_hold(name: str) -> None:
    try:
        accepted = file_name(name)
    except UserError:
        assert not re.fullmatch(r"\w([\w -]{0,40}\w)?", name)
        return
    assert accepted == name == name.strip() == Path(name).name
    assert len(f"{name}.environment.json.part".encode()) <= 255
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


@pytest.mark.parametrize(
    "name", ["a\nb", "a\tb", " ", "a ", "\x1b[1m", "..", "a/b", "x" * 201, "é" * 101, "\ud800", ""]
)
def test_a_name_that_no_folder_should_have_is_refused_where_it_is_given(name: str) -> None:
    with pytest.raises(UserError, match=r"^name=.* is not accepted: expected a file name"):
        build(composed() | {"name": name})


@pytest.mark.parametrize(
    "target",
    [
        "nexttoken.engin.heads.Head",
        "nexttoken.errors.heads.Head",
        "nexttoken.engine.heads.Hed",
    ],
)
def test_a_class_that_does_not_exist_is_one_line(target: str) -> None:
    with pytest.raises(UserError, match=rf"_target_='{target}' does not exist; correct the name, or leave it out"):
        declared({"_target_": target}, "needs")
    with pytest.raises(UserError, match=r"does not exist|expected a class of nexttoken\.engine\.heads"):
        build(composed(f"head._target_={target}") | {"name": "x"})


def part(**sets: object) -> SimpleNamespace:
    return SimpleNamespace(
        **{name: frozenset(value.split()) if isinstance(value, str) else value for name, value in sets.items()}
    )


def parts(**given_: object) -> dict[str, object]:
    return {"task": part(offers="labels"), "prompt": part(), "transforms": {}, "inference": part()} | given_


def test_the_first_need_that_nothing_offers_is_named_with_its_fix() -> None:
    config = composed_settings()
    refuse_unfit(parts(), config)
    cases = {
        "this head needs labels": {"task": part()},
        "inference=SimpleNamespace needs options": {"inference": part(needs="options")},
        "inference=SimpleNamespace needs dialogues": {"inference": part(ask=part(ask=part(needs="dialogues")))},
        "transforms=SimpleNamespace needs pairs": {"transforms": {"one": part(), "two": part(needs="pairs dialogues")}},
    }
    for reason, change in cases.items():
        with pytest.raises(UserError) as error:
            refuse_unfit(parts(**change), config)
        assert str(error.value) == f"{reason}, and {FIXES[reason.split()[-1]]}"
    refuse_unfit(parts(prompt=part(offers="options"), inference=part(needs="options labels")), config)


def test_a_gate_is_outermost() -> None:
    gate = part(is_outermost=True)
    refuse_unfit(parts(inference=part(is_outermost=True, ask=part())), composed_settings())
    for inside in (part(ask=gate), part(ask=part(ask=gate))):
        with pytest.raises(UserError, match=r"a gate inside another way of inference .*put it outside"):
            refuse_unfit(parts(inference=inside), composed_settings())


def test_counts_of_answers_need_a_pair_of_them() -> None:
    with pytest.raises(UserError, match=r"transforms=AddCounts needs pairs.*for both transforms=none"):
        build(
            composed("task=quiz", "prompt=quiz", "transforms=counts", "inference=once", "train_transforms=none")
            | {"name": "x"}
        )
    build(composed("transforms=counts") | {"name": "x"})


def test_every_contradiction_is_one_line_and_the_shipped_settings_have_none() -> None:
    assert list(contradictions(composed_settings())) == []
    bad = composed_settings(
        *("adapter=lora", "quantization=nf4", "head=classification", "trainer.strategy=fsdp", "fit.text_epochs=1"),
        *("trainer.precision=16-mixed", "fit.optimizer=adamw_8bit", "adapter.init=orthogonal", "generate_rows=5"),
    )
    lines = list(contradictions(bad))
    assert len(lines) == len(set(lines)) >= 9
    assert all("\n" not in line and any(mark in line for mark in (";", ",")) for line in lines)


@given(st.text(st.characters(), max_size=300), st.sampled_from(["prompt", "fit.learning_rate", "+trainer.x"]))
def test_a_name_fits_a_file_system_and_tells_values_apart(value: str, key: str) -> None:
    name = default_name("/data/arena", [f"{key}={value}"])
    assert name.startswith("arena_")
    assert len(name.encode()) <= 130
    assert not set(name) & set("/\\ \n\0'\"$*?;")
    assert default_name("/data/arena", [f"{key}={value}"]) == name


@given(st.text("ab ,.[]'\"-=(){}", min_size=1, max_size=8), st.text("ab ,.[]'\"-=(){}", min_size=1, max_size=8))
def test_values_that_differ_by_marks_alone_have_names_that_differ(one: str, other: str) -> None:
    same_list = one.replace(" ", "") == other.replace(" ", "")  # [a,b] and [a, b] are one value
    names = {default_name("in", [f"prompt.labels={value}"]) for value in (one, other)}
    assert len(names) == 1 + (one != other and not (same_list and one.startswith("[")))


def test_a_plain_value_needs_no_hash_and_another_one_has_it() -> None:
    plain_name, spaced = (default_name("in", [f"prompt.labels={v}"]) for v in ("[A,B,tie]", '[" A"," B"," tie"]'))
    assert plain_name == "in_labels--A-B-tie-"
    assert spaced.startswith("in_labels--A-B-tie--")
    assert default_name("in", ["sweep=heads", "head=label"]) == "in_label"


def test_long_names_differ_and_a_root_folder_has_one() -> None:
    one, other = (default_name("in", [f"prompt={'日' * 300}{end}"]) for end in "ab")
    assert one != other
    assert one.startswith("in_日日")
    assert len(one.encode()) < 256
    assert default_name("/", []) == "data"
    assert default_name("/data/日本", []) == "日本"


def test_a_file_that_allows_a_models_own_code_is_refused_unless_the_command_line_says_so() -> None:
    config = {"model": {"trust_remote_code": True}}
    for overrides in ([], ["model.trust_remote_codes=true"], ["experiment=x"]):
        with pytest.raises(UserError, match=r"^a configuration file says model\.trust_remote_code=true; .*write"):
            refuse_unasked_code(config, overrides)
    refuse_unasked_code(config, ["fold=0", "model.trust_remote_code=true"])
    refuse_unasked_code(config, ["++model.trust_remote_code=true"])
    for overrides in ([], ["model.trust_remote_code=true"]):  # predict.py has the key without `model`
        with pytest.raises(UserError, match=r"^a configuration file says trust_remote_code=true"):
            refuse_unasked_code({"trust_remote_code": True}, overrides)
    refuse_unasked_code({"trust_remote_code": True}, ["trust_remote_code=true"])
    for quiet in ({"model": {"trust_remote_code": False}}, {"model": None}, {}):
        refuse_unasked_code(quiet, [])


def test_a_text_that_omegaconf_would_read_is_one_line_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"'HOME' not found; .*\\\$\{") as error:
        plain(OmegaConf.create({"prompt": "In bash ${HOME} is a variable"}))
    assert "\n" not in str(error.value)
    assert plain(OmegaConf.create({"prompt": "In bash \\${HOME}"})) == {"prompt": "In bash ${HOME}"}


@pytest.mark.parametrize("name", ["../../escaped", "/etc", "a/b", "a\\b", "..", ".hidden", "", "a\0", "./x"])
@pytest.mark.parametrize("task", ["quiz", "marks", "instruct", "dialogue"])
def test_a_task_s_name_stays_in_the_output_folder(task: str, name: str) -> None:
    config = composed_once(f"task={task}")
    with pytest.raises(UserError, match=r"task\.name=.* is not accepted: expected a file name") as error:
        build(config | {"name": "x", "task": config["task"] | {"name": name}})
    assert "\n" not in str(error.value)
    build(config | {"name": "x", "task": config["task"] | {"name": "other-task 2"}})
