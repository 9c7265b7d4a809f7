"""Files of tokenised rows come back unchanged, and damage is noticed; chat templates keep prompt and answer apart."""

import zlib
from itertools import pairwise
from pathlib import Path

import jinja2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nexttoken.errors import UserError
from nexttoken.prompts.chat_templates import TEMPLATES, named
from nexttoken.prompts.token_file import END, MAGIC, TABLE, TokenFile, TokenRow, write_rows

IDS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9)
KEYED = st.dictionaries(
    st.binary(min_size=16, max_size=16), st.tuples(IDS, st.text(st.characters()), st.booleans()), max_size=6
)


def made(token_ids: list[int], text: str, has_learnt: bool) -> TokenRow:
    ids = np.array(token_ids, dtype=np.int32)
    learnt = ids % 2 == 0 if has_learnt else None
    return TokenRow(ids, text, learnt, was_cut=has_learnt, lost=not has_learnt, share_cut=0.1, num_disarmed=len(text))


def save(path: Path, rows: dict[bytes, TokenRow]) -> Path:
    with path.open("wb") as file:
        write_rows(file, iter(rows.items()))
    return path


def same(one: TokenRow, other: TokenRow) -> bool:
    text = other.text if isinstance(other.text, str) else other.text()
    return (
        (one.text, one.was_cut, one.lost, one.share_cut, one.num_disarmed)
        == (text, other.was_cut, other.lost, other.share_cut, other.num_disarmed)
        and one.token_ids.tolist() == other.token_ids.tolist()
        and (one.learnt is None) == (other.learnt is None)
        and (one.learnt is None or (other.learnt is not None and one.learnt.tolist() == other.learnt.tolist()))
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keyed=KEYED)
def test_rows_come_back_by_key_whatever_their_order(tmp_path: Path, keyed: dict) -> None:
    rows = {key: made(*values) for key, values in keyed.items()}
    file = TokenFile.open(save(tmp_path / "rows", rows))
    places = file.find(np.array([*rows, b"absent, 16 bytes"], dtype="S16"))
    assert places[-1] == -1
    assert sorted(places[:-1].tolist()) == list(range(len(rows)))
    for place, row in zip(places[:-1].tolist(), rows.values(), strict=True):
        assert same(row, file.row(place))
        assert file.row(place).token_ids.dtype == np.int32
        assert file.table["start"][place] % 4 == 0  # ids are read in place, so they must be aligned
    assert all(one <= other for one, other in pairwise(file.table["key"].tolist()))


@pytest.fixture(scope="module")
def rows() -> dict[bytes, TokenRow]:
    texts = ["", "é", "質問\ud800", "x" * 9]
    return {bytes([65 + n]) * 16: made([n] * n, text, n % 2 == 0) for n, text in enumerate(texts)}


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path: Path, rows: dict[bytes, TokenRow]) -> None:
    data = save(tmp_path / "rows", rows).read_bytes()
    keys, damaged, refused = np.array(list(rows), dtype="S16"), 0, 0
    for place in range(len(data)):
        (tmp_path / "rows").write_bytes(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        try:
            file = TokenFile.open(tmp_path / "rows")
        except ValueError as error:
            refused += 1
            assert str(tmp_path / "rows") in str(error)  # noqa: PT017 - most bytes do not raise
            continue
        places = file.find(keys).tolist()
        damaged += -1 in places
        assert places.count(-1) <= 1
        assert all(found == -1 or same(row, file.row(found)) for found, row in zip(places, rows.values(), strict=True))
    assert refused == len(rows) * TABLE.itemsize + END.size
    assert damaged == sum(4 * n + n * (n % 2 == 0) for n in range(4)) + sum(
        len(r.text.encode("utf-8", "surrogatepass")) for r in rows.values()
    )


def test_every_cut_file_and_other_files_are_refused(tmp_path: Path, rows: dict[bytes, TokenRow]) -> None:
    path = save(tmp_path / "rows", rows)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"too short|is not a file of tokens|empty file"):
            TokenFile.open(path)
    crowded = END.pack(MAGIC, 0, 2**62, zlib.crc32(b""))
    for other in (data + b"\0", b"\0" + data, b"PK" * 100, crowded, END.pack(MAGIC, 2**63, 0, 0)):
        path.write_bytes(other)
        with pytest.raises(ValueError, match=r"is not a file of tokens|is damaged"):
            TokenFile.open(path)
    with pytest.raises(OSError, match="none"):
        TokenFile.open(tmp_path / "none")


def test_a_row_that_fails_leaves_a_file_that_is_refused(tmp_path: Path, rows: dict[bytes, TokenRow]) -> None:
    def some():
        yield from rows.items()
        raise KeyError

    with (tmp_path / "rows").open("wb") as file, pytest.raises(KeyError):
        write_rows(file, some())
    with pytest.raises(ValueError, match=r"rows is |empty file"):
        TokenFile.open(tmp_path / "rows")


def render(name: str, *turns: tuple[str, str], **more: object) -> str:
    """The text as transformers renders it."""

    def refuse(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    messages = [{"role": role, "content": content} for role, content in turns]
    template = environment.from_string(named(name))
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", **more)


WORDS = st.text("ab \n{}%<|>質", min_size=1, max_size=12)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=15)
@given(asked=WORDS, answer=WORDS, again=WORDS)
def test_an_answer_goes_on_from_its_prompt_and_a_dialogue_from_its_turns(
    name: str, asked: str, answer: str, again: str
) -> None:
    first = ("user", asked)
    prompt = render(name, first, add_generation_prompt=True)
    whole = render(name, first, ("assistant", answer.strip() + "."))
    assert whole.startswith(prompt + answer.strip() + ".")
    assert asked.strip() in prompt
    longer = render(name, first, ("assistant", answer), ("user", again), add_generation_prompt=True)
    assert longer.startswith(render(name, first, ("assistant", answer)))
    assert prompt.count("<s>") == longer.count("<s>") == (name in ("gemma", "llama3"))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_system_message_comes_first_or_is_refused(name: str) -> None:
    turns = (("system", "Be brief."), ("user", "Hi"))
    if name == "gemma":
        with pytest.raises(jinja2.exceptions.TemplateError, match="System role not supported"):
            render(name, *turns)
        return
    text = render(name, *turns, add_generation_prompt=True)
    assert text.index("Be brief.") < text.index("Hi")


@pytest.mark.parametrize(
    ("name", "hint"), [("lama3", "did you mean 'llama3'"), ("", "known: alpaca"), ("CHATML", "did you mean 'chatml'")]
)
def test_an_unknown_template_is_refused_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"prompt.chat_template='{name}' is not known; {hint}"):
        named(name)
