"""Every target takes its sound samples, and obeys the rule for altered ones and for what was found before."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.made import MADE
from fuzz.rule import BrokenRule, obey
from fuzz.targets import MODULES, target
from nexttoken.errors import UserError

HEAVY = ("pages", "runs")  # a second or more an input
NAMES, FORMS = (
    [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in names] for names in (MODULES, MADE)
)
FOUND = [  # inputs that once broke the rule, cut to what matters
    ("csv", b"\x05id,prompt,A,B,C,D,E,answer\n0,q?,a,b,c,d,," + b"[" * 200_000 + b"\n"),
    ("prompts", b"{{ " + b"1" * 5_000 + b" }}"),
    ("prompts", b"{{ " + b"a" * 200_000 + b" }}"),
    ("tables", b"\0id,body\x08,label\n7,a,x\n8,b,y\n9,c,x\n10,d,y\n"),
    ("tables", b"\0id,body,label\n7,a,x\n8,b,y\n9,c,x\n10,d," + b"1" * 200_000 + b"x\n"),
    ("yaml_files", b'\x05[[], {"a": 1}]'),
    ("yaml_files", b"\x02_target_: nexttoken.prompts.Prompt\nuser: x\nanswer_cue: x\nlabels: {a: 1, b: 2, c: 3}\n"),
    ("yaml_files", b"\x04# @package _global_\nmodel: x\n"),
    ("overrides", b"input_dir=0.0"),
    ("models", b'\x01{"eos_token_id": [[0]]}'),
    ("models", b'\x03{"tokenizer_class": "TokenizersBackend", "chat_template": {"null": null}}'),
    ("models", b'\0{"model_type": "llama"}'),  # with the sizes of the first one: 27 GB of random weights
    ("models", b"\x01[]"),
    ("models", b"\x01" + b"[" * 100_000),
    ("models", b'\x03{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "' + b"x" * 20_000 + b'"}'),
]


@pytest.mark.parametrize("name", NAMES)
def test_sound_samples_are_taken(name):
    chosen = target(name)
    samples = chosen.samples if name not in HEAVY else chosen.samples[-3:]
    assert [place for place, sample in enumerate(samples) if not chosen.one_input(sample)] == []


@pytest.mark.parametrize("name", NAMES)
def test_altered_samples_and_any_bytes_obey_the_rule(name):
    chosen = target(name)

    @settings(max_examples=5, database=None)
    @given(st.sampled_from(chosen.samples), st.integers(0, 2**32), st.binary(max_size=100))
    def obeys(sample: bytes, seed: int, data: bytes) -> None:
        chosen.one_input(chosen.altered(sample, seed))
        chosen.one_input(data)

    obeys()


@pytest.mark.parametrize("name", FORMS)
def test_inputs_of_sound_form_obey_the_rule(name):
    chosen = target(name)

    @settings(max_examples=5, database=None)
    @given(st.data())
    def obeys(data: st.DataObject) -> None:
        sample = data.draw(st.sampled_from(chosen.samples))
        chosen.one_input(sample[: chosen.num_kept] + data.draw(MADE[name](sample[chosen.num_kept :])))

    obeys()


@pytest.mark.parametrize(
    ("name", "place", "values"),
    [
        ("run_settings", 0, {"input_dir": None}),
        ("models", 0, {"architectures": [None]}),
        ("models", 3, {"model_max_length": [1]}),
    ],
)
def test_one_odd_value_of_a_sound_file_obeys_the_rule(name, place, values):
    sample = target(name).samples[place]
    target(name).one_input(sample[:1] + json.dumps(json.loads(sample[1:]) | values).encode())


@pytest.mark.parametrize(("name", "data"), FOUND, ids=lambda value: str(value)[:20])
def test_what_was_found_before_obeys_the_rule(name, data):
    target(name).one_input(data)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "KeyError: 'x'"),
        (UserError("two\nlines"), "several lines: two"),
        (UserError(" "), "a refusal without words"),
        (UserError("mend it"), "none of a.csv in: mend it"),
        (TimeoutError("slow"), "TimeoutError: slow"),
    ],
)
def test_the_rule_is_broken_by(error, words):
    def work() -> None:
        raise error

    with pytest.raises(BrokenRule, match=words):
        obey(work, "a.csv")


def test_the_rule_ends_endless_work():
    def work() -> None:
        while True:
            pass

    with pytest.raises(BrokenRule, match="not done within"):
        obey(work, max_seconds=0.1)
