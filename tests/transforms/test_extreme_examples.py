"""Orders, counts, demonstrations, dialogues and curation steps on extreme examples and impossible settings."""

import math
import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nexttoken.data.near_duplicates import normalise
from nexttoken.errors import UserError
from nexttoken.transforms import apply_transforms
from nexttoken.transforms.counts import AddCounts, AddLength, pair_features, text_counts
from nexttoken.transforms.curation.language import KeepLanguage, language_letters, language_of
from nexttoken.transforms.curation.marks import KeepMarked
from nexttoken.transforms.curation.rare import DropRareCharacters
from nexttoken.transforms.curation.repeats import DropNearDuplicates, DropRepeats
from nexttoken.transforms.curation.scripts import DropMojibake, DropScripts
from nexttoken.transforms.curation.step import Drop, Step, Tally, excerpt
from nexttoken.transforms.curation.words import DropEmpty, DropWords, Lengths, Replace
from nexttoken.transforms.demonstrations import AddDemonstrations, Pool, show_similar
from nexttoken.transforms.dialogue import Persona, Windows, replies
from nexttoken.transforms.orders import BothOrders, ShuffleOptions, reorder, swap_sides
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, OPTIONS, Example, Swap

ANY_TEXT = st.text(st.characters(), max_size=15) | st.text("あ山 a-1.\n\r\t\0\ud800。", max_size=30)
ROWS = st.lists(st.tuples(ANY_TEXT, ANY_TEXT, st.none() | ANY_TEXT), max_size=6)
STEPS = [
    *(DropWords(words=["あ", "A"]), Replace(texts={"a": "b", "\ud800": ""}), DropEmpty(), Lengths(), DropScripts()),
    *(DropMojibake(), KeepLanguage(), DropRareCharacters(at_most=1), DropRepeats(), DropNearDuplicates(least=2)),
]


def task(row_id: str, *texts: str, answer: str | None = "yes", **tags: str) -> Example:
    return Example(
        row_id, dict(zip((INSTRUCTION, INPUT), [(t,) for t in texts], strict=False)), tags=tags, answer=answer
    )


def question(num_options: int, label: int | None = 0, row_id: str = "q") -> Example:
    options = tuple(f"option {n}" for n in range(num_options))
    return Example(row_id, {"question": ("?",), OPTIONS: options}, label, num_options)


@pytest.mark.parametrize("fields", [{"x_a": ("1",)}, {"x_a": ("1",), "x_b": ("2",), "y_b": ("3",)}])
def test_a_field_without_its_partner_is_named(fields: dict) -> None:
    with pytest.raises(UserError, match=rf"row 7 has a field '{[*fields][-1]}' without its partner.*; add it"):
        BothOrders()([Example("7", fields, 0)])


@given(st.dictionaries(st.text("ab_", max_size=3), st.tuples(ANY_TEXT), max_size=4), st.sampled_from([None, 0, 1, 2]))
def test_swapping_keeps_names_and_undoes_itself(half: dict, label: int | None) -> None:
    fields = {f"{name}{end}": (*turns, end) for end in ("_a", "_b") for name, turns in half.items()} | {"": ("x",)}
    example_ = Example("1", fields, label, tags={"genre": "x"}, round=3)
    swapped = swap_sides(example_)
    assert list(swapped.fields) == list(fields)
    assert swap_sides(swapped) == example_
    assert {swapped.fields[f"{name}_a"][-1] for name in half} <= {"_b"}
    assert (swapped.id, swapped.tags, swapped.round) == ("1", {"genre": "x"}, 3)


@given(st.integers(2, 48), st.randoms(), st.sampled_from([("_a", "_b"), ("left", "right"), ("1", "2")]))
def test_any_number_of_classes_and_any_sides_change_places(number: int, draw: random.Random, sides) -> None:
    places = draw.sample(range(number), number)
    partner = list(range(number))
    for one, other in zip(places[: number // 3], places[number // 3 :], strict=False):
        partner[one], partner[other] = other, one
    swap = Swap.of(SimpleNamespace(name="t", classes=tuple(map(str, range(number))), swap=Swap(tuple(partner), sides)))
    asked = Example("1", {f"x{sides[0]}": ("first",), f"x{sides[1]}": ("second",), "y": ("z",)}, draw.randrange(number))
    turned = swap_sides(asked, swap)
    assert turned.fields == {f"x{sides[0]}": ("second",), f"x{sides[1]}": ("first",), "y": ("z",)}
    assert turned.label == partner[asked.label]  # type: ignore[index]
    assert BothOrders(swap)([asked]) == [asked, turned]
    assert swap_sides(turned, swap) == asked


@pytest.mark.parametrize("classes", [(0,), (0, 1, 2), (1, 2, 0), (0, 0, 2), (0, 3, 1), (-3, 1, 2), ()])
def test_a_swap_that_is_not_its_own_inverse_is_refused(classes: tuple[int, ...]) -> None:
    task = SimpleNamespace(name="t", classes=("A", "B", "tie"), swap=Swap(classes))
    if classes == (0, 1, 2):  # nothing but the fields changes places
        assert Swap.of(task) == task.swap
        return
    with pytest.raises(UserError, match=r"the task t has 3 classes and swap.classes=\("):
        Swap.of(task)


def test_counts_of_a_task_without_their_fields_are_refused() -> None:
    with pytest.raises(UserError, match="row 7 has no field 'response_a', whose words are counted"):
        AddCounts()([Example("7", {"left": ("1",), "right": ("2",)}, 0)])


@given(st.integers(0, 12), st.integers(1, 9), st.integers(-5, 5))
def test_shuffled_options_follow_their_label(num_options: int, num_orders: int, seed: int) -> None:
    label = num_options - 1 if num_options else None
    shuffle, asked = ShuffleOptions(num_orders, seed), question(num_options, label)
    orders = shuffle([asked])
    assert [one.round for one in orders] == list(range(num_orders))
    for one in orders:
        assert sorted(one.fields[OPTIONS]) == sorted(asked.fields[OPTIONS])
        assert label is None or one.fields[OPTIONS][one.label] == asked.fields[OPTIONS][label]
        assert reorder(asked, [int(text.split()[1]) for text in one.fields[OPTIONS]]).fields == one.fields
    assert shuffle([question(3, row_id="other"), asked])[num_orders:] == orders  # whatever stands beside it


@pytest.mark.parametrize("num_orders", [0, -1])
def test_no_orders_are_refused(num_orders: int) -> None:
    with pytest.raises(UserError, match=f"num_orders={num_orders}: expected at least 1"):
        ShuffleOptions(num_orders)


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_counts_are_finite_and_shares_are_shares(first: str, second: str, context: str) -> None:
    counts = text_counts(first, context)
    assert all(0 <= value <= (1 if name.endswith("share") else math.inf) for name, value in counts.items())
    assert counts["new_words"] <= counts["words"] <= counts["characters"] * 3  # ŉ folds to two letters
    assert text_counts(first, first)["new_words"] == 0
    features, swapped = pair_features(first, second, context), pair_features(second, first, context)
    assert features.shared == swapped.shared
    assert features.signed == {name: -value for name, value in swapped.signed.items()}
    assert all(map(math.isfinite, [*features.signed.values(), *features.shared.values()]))
    assert 0 <= features.shared["overlap"] <= 1


def test_counts_of_lists_and_paragraphs() -> None:
    counts = text_counts("- a\n  * b\n1) c\n12. d\n-e\n\nend")
    assert (counts["list_items"], counts["paragraphs"]) == (4, 2)
    assert set(text_counts("").values()) == {0}
    assert text_counts("山と海 sea")["words"] == 4


def test_a_string_of_names_and_a_taken_or_absent_field_are_refused() -> None:
    with pytest.raises(UserError, match=r"transforms: .* cannot be compared; choose from characters"):
        AddCounts(compared="words")
    for fields, fault in (({}, "has no field 'input'"), ({"input": (), "length": ()}, "already has a field 'length'")):
        with pytest.raises(UserError, match=f"row 7 {fault}.*set field= and name="):
            AddLength()([Example("7", fields)])
    for bad in ({"share": math.nan}, {"share": 0}, {"share": 1.01}, {"at_least": 0}):
        with pytest.raises(UserError, match="expected"):
            AddLength(**bad)
    (added,) = AddLength(share=1, at_least=1)([Example("7", {"input": ()})])
    assert added.fields["length"] == ("1",)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("texts", [["!"], ["", "…", "?!"], ["", "a b", "!"], ["a"] * 3])
def test_tasks_without_any_word_are_shown_other_tasks(texts: list[str]) -> None:
    pool = [task(f"p{n}", text) for n, text in enumerate(texts)]
    for asked in ("", "!!", "a", "日本\ud800"):
        (shown,) = show_similar([task("x", asked)], pool, 5)
        ids = [one.id for one in shown.demonstrations]
        assert len(ids) == len({normalise(text) for text in texts} - {normalise(asked)})


def test_demonstrations_of_nothing_and_of_one_are_none() -> None:
    assert AddDemonstrations()([]) == []
    assert show_similar([task("x", "a")], [], 3) == [task("x", "a")]
    assert AddDemonstrations()([task("x", "a")]) == [task("x", "a")]
    with pytest.raises(UserError, match="num_demonstrations=0: expected at least 1"):
        AddDemonstrations(0)


@given(st.permutations(range(6)), st.integers(1, 8))
def test_the_best_is_last_and_neither_its_text_nor_its_dialogue_is_chosen(ranked, number: int) -> None:
    pool = [
        *(task("0", "other words"), task("1", "Asked!"), task("2", "b", dialogue="d"), task("3", "c", dialogue="e")),
        *(task("4", "e"), task("5", "C.", dialogue="f")),
    ]
    chosen = [one.id for one in Pool(pool).choose(task("0", "asked", dialogue="d"), ranked, number)]
    twin = "5" if ranked.index(3) < ranked.index(5) else "3"  # "c" and "C." are one text
    # "0" is another text under the same bare id, so it may be shown.
    expected = [str(n) for n in ranked if str(n) not in ("1", "2", twin)][:number]
    assert chosen == expected[::-1]


TURNS = st.lists(ANY_TEXT, min_size=1, max_size=9).filter(lambda turns: len(turns) % 2 == 1)


@given(TURNS, st.sampled_from([2, 4, 6, 20]), st.none() | st.integers(1, 3))
def test_windows_are_runs_of_the_dialogue_that_end_with_an_answer(
    turns: list[str], size: int, first: int | None
) -> None:
    dialogue = Example("d", {DIALOGUE: tuple(turns)}, answer="end")
    whole = [*turns, "end"]
    windows = Windows(size, first)([dialogue])
    starts = [0] if len(whole) <= size else range(0, len(whole) - size + 1, 2)
    assert [[*w.fields[DIALOGUE], w.answer] for w in windows] == [whole[s : s + size] for s in starts][:first]
    assert [w.id for w in windows] == [f"d#{n}" for n in range(1, len(windows) + 1)]
    answers = replies([dialogue], size)
    assert [w.answer for w in answers] == whole[1::2]
    assert all(
        [*w.fields[DIALOGUE], w.answer] == whole[max(0, end - size) : end]
        for w, end in zip(answers, range(2, 99, 2), strict=False)
    )
    test_row = Example("d", {DIALOGUE: tuple(turns)})
    assert Windows(size)([test_row]) == [test_row]
    (last,) = replies([test_row], size)
    assert (last.id, last.answer, last.fields[DIALOGUE]) == ("d", None, tuple(turns[-size + 1 :]))


@given(TURNS, st.text(max_size=3), st.text(max_size=3), st.sampled_from([2, 4]))
def test_every_window_opens_with_the_persona_once(turns: list[str], first: str, second: str, size: int) -> None:
    dialogue = Example("d", {DIALOGUE: tuple(turns)}, answer="end")
    plain = Windows(size)([dialogue])
    before = Windows(size)(Persona(second)(Persona(first)([dialogue])))
    after = Persona(second)(Persona(first)(plain))
    assert [w.fields for w in before] == [w.fields for w in after]
    for window, bare in zip(before, plain, strict=True):
        opening, *further = bare.fields[DIALOGUE]
        assert window.fields[DIALOGUE] == (second + first + opening, *further)


@pytest.mark.parametrize("size", [0, 1, 3, -2, 2.0, "2", None])
def test_odd_lengths_of_windows_are_refused(size: object) -> None:
    for make in (Windows, lambda size: replies([], size)):
        with pytest.raises(UserError, match=f"num_utterances={size}: expected an even number from 2"):
            make(size)
    with pytest.raises(UserError, match="first=0: expected at least 1 window"):
        Windows(first=0)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_every_step_takes_no_rows_and_one_row(step: Step) -> None:
    assert step([]) == []
    assert step.report() == {"kept": 0, "dropped": 0, "changed": 0, "reasons": {}, "examples": []} | {
        name: value for name, value in step.report().items() if name == "notes"
    }
    step([Example("1", {})])
    assert step.report()["kept"] + step.report()["dropped"] == 1


@settings(max_examples=30)
@given(ROWS)
@example([("日本\ud800語のかな", "this is English \ud800 all of it", "\udfff this is English")])
@example([("\0\x0b\r", "\u2028" * 5, None), ("٣" * 30, "ⵣ" * 30, "𐍈" * 30)])
def test_every_step_counts_each_row_once_and_a_second_time_drops_nothing_more(texts: list[tuple]) -> None:
    rows = [task(str(n), instruction, context, answer=answer) for n, (instruction, context, answer) in enumerate(texts)]
    for step in STEPS:
        left = step(rows)
        report = step.report()
        assert report["kept"] == len(left)
        assert report["kept"] + report["dropped"] == len(rows)
        assert sum(report["reasons"].values()) == report["dropped"]
        assert all(int(one.id) < int(other.id) for one, other in pairwise(left))
        if not isinstance(step, DropRareCharacters):  # what is rare depends on the set
            assert step(left) == left


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: DropWords(words=[42]), "42 in words is no text; quote it"),
        (lambda: DropWords(words=[False]), "False in words is no text; quote it"),
        (lambda: DropWords(words="ab"), r"words='ab' is no list; expected \[ab\]"),
        (lambda: DropWords(words=["a"], sides=[]), "choose from asked, answered"),
        (lambda: Replace(texts={"a": 1}), "expected {old text: new text}, numbers in quotes"),
        (lambda: Replace(texts={1: "a"}), "expected {old text: new text}"),
        (lambda: Replace(texts=["a"]), "expected {old text: new text}"),
        (lambda: Replace(texts={"": "a"}), "texts has an empty key"),
        (lambda: Lengths(asked=(5, 4)), r"asked=\(5, 4\), expected \[shortest, longest\]"),
        (lambda: Lengths(answered=(math.nan, math.nan)), "expected .shortest, longest"),
        (lambda: Lengths(asked=None), "asked=None, expected"),
        (lambda: Lengths(asked=("1", "2")), "expected .shortest, longest"),
        (lambda: DropNearDuplicates(width=3.5), r"whole numbers, not \(3.5, 24, 16, 4\)"),
        (lambda: DropNearDuplicates(bands="4"), "whole numbers, not"),
        (lambda: DropNearDuplicates(threshold=math.nan), "threshold=nan, expected over 0 to 1"),
        (lambda: DropNearDuplicates(threshold="x"), "expected numbers, not"),
        (lambda: DropRareCharacters(encodings=["undefined"]), "unknown encoding 'undefined'; write cp932"),
        (lambda: DropRareCharacters(encodings="cp932"), "unknown encoding 'c'"),
        (lambda: DropRareCharacters(most_rows=math.nan), "most_rows=nan"),
        (lambda: DropScripts(allowed="LATIN"), "no letter's name begins with 'L'"),
        (lambda: KeepLanguage(at_least=math.nan), "at_least=nan.*shares are 0 to 1"),
        (lambda: KeepLanguage(language="jp").check(), "unknown language 'jp'; write ja, en"),
        (lambda: KeepMarked("x.csv", math.nan), "at_least=nan, expected a number"),
        (lambda: KeepMarked("x.csv", "3"), "at_least='3', expected a number"),
        (lambda: KeepMarked("x.csv", 3, missing="no"), "missing='no', expected keep or drop"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_any_row(make, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        make()
    assert "\n" not in str(error.value)


def test_marks_may_be_infinite_and_ids_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "marks.csv"
    path.write_text("id,mark\n1,inf\n01,-inf\n2,3\n")
    step = KeepMarked(str(path), 3)
    assert [row.id for row in step([task(row_id, "a") for row_id in ("01", "1", "2", "3")])] == ["1", "2", "3"]
    assert step.report()["reasons"] == {"a mark under 3": 1}
    assert step.report()["kept_with"] == {"no mark": 1}


def test_languages_of_halves_of_characters_and_of_nothing() -> None:
    assert language_of("This is \ud800 an English sentence") == "en"
    assert language_of("\ud800" * 9) == language_of("") == language_of("12345 !?") == ""
    assert language_letters("") == {"ja": 0}


def test_tallies_of_chunks_add_up_to_that_of_the_whole() -> None:
    rows = [task(str(n), "x" * n) for n in range(23)]
    whole, joined = Tally(), Tally()
    for start in range(0, 23, 4):
        part = Tally()
        for row in rows[start : start + 4]:
            for tally in (whole, part):
                tally.drop(row, Drop("short" if int(row.id) % 3 else "long", "detail"))
        joined.add(part)
    assert joined.report() == whole.report()
    assert [one["id"] for one in joined.report()["examples"]] == ["1", "2", "4", "0", "3", "6"]
    assert excerpt(task("1", "a\n" * 500, answer="b" * 81)) == f"{'a ' * 40}… | {'b' * 80}…"


def test_transforms_print_what_they_change_and_count_everything(capsys) -> None:
    counted: dict = {}
    rows = [question(3), question(3, row_id="r")]
    transforms = {"options": ShuffleOptions(3), "none": lambda rows: list(rows), "empty": DropEmpty()}
    assert apply_transforms(rows, transforms, counted) == []
    assert capsys.readouterr().out.splitlines() == [
        "transform options: 2 -> 6 examples",
        "transform empty: 6 -> 0 examples",
    ]
    assert counted["none"] == {"num_before": 6, "num_after": 6}
    assert counted["empty"]["reasons"] == {"asked: empty": 6}
    assert apply_transforms(rows, {}) is rows
