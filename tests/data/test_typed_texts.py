"""A typed \n is a line break in every text of a configuration, and nowhere else."""

import pytest
from omegaconf import OmegaConf

from nexttoken.build import plain
from nexttoken.commands.entry import compose
from nexttoken.commands.judge import read_rubric
from nexttoken.data.typed_texts import with_line_breaks


@pytest.fixture(autouse=True)
def _in_the_repository(repository, monkeypatch) -> None:
    monkeypatch.chdir(repository)


@pytest.mark.parametrize(
    ("entry", "override", "path", "text"),
    [
        ("train", r'prompt.answer_cue="### Answer\n"', "prompt.answer_cue", "### Answer\n"),
        ("train", r"prompt.answer_cue=A\nB", "prompt.answer_cue", "A\nB"),
        ("train", r'prompt.user="{{ prompt | join(\"\n\") }}\n"', "prompt.user", '{{ prompt | join("\n") }}\n'),
        ("train", r'prompt.system="Be kind.\nBe brief."', "prompt.system", "Be kind.\nBe brief."),
        ("train", r'prompt.labels=["A\n","B","C"]', "prompt.labels", ["A\n", "B", "C"]),
        ("train", r'generation.stop=["\n","\n\nUser:"]', "generation.stop", ["\n", "\n\nUser:"]),
        ("predict", r'generation.stop=["\n"]', "generation.stop", ["\n"]),
        ("predict", r"generation.banned=['\n- ']", "generation.banned", ["\n- "]),
        ("train", r'+transforms.p={prefix: "Hi\n"}', "transforms.p.prefix", "Hi\n"),
        ("train", r'prompt.system="the \nabla of \nu \neq 0"', "prompt.system", r"the \nabla of \nu \neq 0"),
        ("train", r'prompt.system="a \\n b"', "prompt.system", r"a \\n b"),
        ("train", r'input_dir="C:\new"', "input_dir", r"C:\new"),
        ("train", r'model.name_or_path="..\new"', "model.name_or_path", r"..\new"),
    ],
)
def test_a_typed_n_is_a_line_break_in_texts_alone(entry, override, path, text):
    config = OmegaConf.create(plain(compose(entry, [override])))
    found = OmegaConf.select(config, path)
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == text


def test_paths_beside_texts_stay_as_they_are():
    node = {"_target_": r"a\nb", "path": r"a\nb", "train_dir": r"a\nb", "prefix": r"a\nb"}
    assert with_line_breaks({"transforms": node})["transforms"] == node | {"prefix": "a\nb"}


def test_a_typed_rubric_has_line_breaks():
    assert read_rubric(r"Be kind.\nBe brief.") == "Be kind.\nBe brief."
