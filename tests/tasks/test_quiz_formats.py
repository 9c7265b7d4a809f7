"""Quiz formats: what one writes another reads without loss, and a faulty row is named by file and line."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nexttoken.tasks.quiz_formats
from nexttoken.data.row_faults import Faults, RowFault
from nexttoken.errors import UserError
from nexttoken.tasks.quiz_formats import FORMATS, named, recognised
from nexttoken.tasks.quiz_formats.candidates import choose, draw_options
from nexttoken.tasks.quiz_formats.instruction import parse
from nexttoken.tasks.quiz_formats.question import Question

JSON_FORMATS = ("jaqket", "instruction", "instruction_input", "plain")
JAQKET = [
    {
        "qid": "ABC01-01-0001",
        "question": "日本でいちばん高い山は何でしょう?",
        "answer_entity": "富士山",
        "answer_candidates": ["富士山", *[f"山{i}" for i in range(19)]],
        "original_question": "日本でいちばん高い山は何でしょう?",
        "original_answer": "富士山",
        "section": "開発",
    },
    {
        "qid": "ABC01-01-0002",
        "question": "1たす1は?",
        "answer_entity": "2",
        "answer_candidates": ["1", "2", "3"],
        "n": 7,
    },
]
COURSE = [
    {
        "instruction": "0, 1, 2の中から。\n\n問題: 酸素の記号は? \n選択肢\n\n0: H\n1: O\n2: N\n\n\n### 回答:\n",
        "output": "1: O",
    },
    {
        "instruction": "番号で。\n問題：海の王は?\n",
        "input": "1. クラゲ\n2. クジラ\n\n",
        "output": "2",
    },
    {"instruction": "問題:色は?", "input": "0: 赤\n1: 青", "output": "青", "id": "c3", "genre": "色", "note": [1]},
]


def write_lines(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_rows(path: Path, *rows: tuple, encoding: str = "utf-8-sig") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def json_of(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]


def cells_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file, strict=True))


@pytest.mark.parametrize("other", [*JSON_FORMATS, "jcommonsenseqa", "science_exam"])
@pytest.mark.parametrize(("name", "count"), [("train-v1.3.json", 8939), ("valid-v1.3.json", 1119)])
def test_jcommonsenseqa_returns_equal_through_every_format(shared_dir, tmp_path, name, count, other):
    source = shared_dir / "data" / "jcommonsenseqa" / name
    questions = recognised(source).read(source)
    assert len(questions) == count
    named(other).write(questions, tmp_path / "other")
    assert recognised(tmp_path / "other").name == other
    back = named(other).read(tmp_path / "other")
    assert back == questions
    named("jcommonsenseqa").write(back, tmp_path / "back")
    assert json_of(tmp_path / "back") == json_of(source)


@pytest.mark.parametrize("other", [*JSON_FORMATS, "science_exam", "jmmlu"])
def test_every_jmmlu_subject_returns_equal_through_every_format(shared_dir, tmp_path, other):
    source = shared_dir / "data" / "jmmlu"
    questions = named("jmmlu").read(source)
    assert recognised(source).name == "jmmlu"
    assert (len(questions), len({question.genre for question in questions})) == (2360, 17)
    named(other).write(questions, tmp_path / "other")
    assert recognised(tmp_path / "other").name == other
    back = named(other).read(tmp_path / "other")
    assert back == questions
    named("jmmlu").write(back, tmp_path / "back")
    for path in source.glob("*.csv"):
        assert cells_of(tmp_path / "back" / path.name) == cells_of(path)


def test_jcommonsenseqa_as_jmmlu_keeps_all_but_ids(shared_dir, tmp_path):
    source = shared_dir / "data" / "jcommonsenseqa" / "valid-v1.3.json"
    questions = named("jcommonsenseqa").read(source)
    named("jmmlu").write(questions, tmp_path / "sense.csv")
    back = named("jmmlu").read(tmp_path / "sense.csv")
    assert [q.id for q in back[:2]] == ["sense-1", "sense-2"]
    assert [replace(b, id=q.id, genre="") for b, q in zip(back, questions, strict=True)] == questions


def test_jmmlu_files_are_written_as_published(shared_dir, tmp_path):
    source = shared_dir / "data" / "jmmlu" / "marketing.csv"
    named("jmmlu").write(named("jmmlu").read(source), tmp_path / "marketing.csv")
    assert (tmp_path / "marketing.csv").read_bytes() == source.read_bytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("other", ["jaqket", "plain"])
def test_jaqket_keeps_every_key(tmp_path, packed, other):
    source = write_lines(tmp_path / "dev1_questions.json", *JAQKET)
    if packed:
        source = tmp_path / "dev1_questions.json.gz"
        source.write_bytes(gzip.compress((tmp_path / "dev1_questions.json").read_bytes()))
    assert recognised(source).name == "jaqket"
    questions = named("jaqket").read(source)
    assert [(q.id, len(q.options), q.answer, q.genre) for q in questions] == [
        ("ABC01-01-0001", 20, 0, "開発"),
        ("ABC01-01-0002", 3, 1, ""),
    ]
    named(other).write(questions, tmp_path / "other.jsonl")
    named("jaqket").write(named(other).read(tmp_path / "other.jsonl"), tmp_path / "back.json")
    assert json_of(tmp_path / "back.json") == JAQKET


def test_the_second_of_equal_candidates_stays_the_answer(tmp_path):
    question = Question("1", "どれ?", ("a", "b", "a"), 2)
    named("jaqket").write([question], tmp_path / "q.json")
    assert json_of(tmp_path / "q.json")[0]["answer_entity"] == "a"
    assert named("jaqket").read(tmp_path / "q.json") == [question]


@pytest.mark.parametrize("other", ["instruction", "plain", "jaqket"])
def test_foreign_instructions_are_read_and_written_as_they_were(tmp_path, other):
    source = tmp_path / "quiz.json"
    source.write_text(json.dumps(COURSE, ensure_ascii=False, indent=1), encoding="utf-8")
    questions = recognised(source).read(source)
    assert [(q.id, q.text, q.options, q.answer) for q in questions] == [
        ("quiz-1", "酸素の記号は?", ("H", "O", "N"), 1),
        ("quiz-2", "海の王は?", ("クラゲ", "クジラ"), 1),
        ("c3", "色は?", ("赤", "青"), 1),
    ]
    named(other).write(questions, tmp_path / "other")
    named("instruction").write(named(other).read(tmp_path / "other"), tmp_path / "back.json")
    expected = [{"id": f"quiz-{row}"} | dict(text) for row, text in enumerate(COURSE, start=1)]
    assert json_of(tmp_path / "back.json") == expected


def test_both_shapes_of_our_own_instructions(tmp_path):
    question = Question("7", "空は?", ("赤い", "青い"), 1, "自然")
    named("instruction").write([question], tmp_path / "one.json")
    named("instruction_input").write([question], tmp_path / "two.json")
    (one,), (two,) = json_of(tmp_path / "one.json"), json_of(tmp_path / "two.json")
    assert one["instruction"].endswith("\n問題: 空は?\n選択肢\n\n0: 赤い\n1: 青い\n\n\n### 回答:\n")
    assert (one["output"], one["id"], one["genre"]) == ("1: 青い", "7", "自然")
    assert two["instruction"].endswith("\n問題: 空は?\n")
    assert two["input"] == "0: 赤い\n1: 青い\n\n"


@given(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=5),
    st.integers(0, 1),
)
@example("0", ["\n0", "0"], 1)
@example("0", ["\n0", "0"], 0)
@settings(max_examples=40, deadline=None)
def test_any_text_survives_every_json_format(tmp_path_factory, text, options, answer):
    question = Question("1", text, tuple(options), answer, "g")
    path = tmp_path_factory.mktemp("any") / "questions"
    for name in JSON_FORMATS:
        named(name).write([question], path)
        assert named(name).read(path) == [question]


def test_carriage_returns_and_lone_surrogates(tmp_path):
    question = Question("a-1", "one\rtwo\r\n", ("x\n", '"'), 0, "a")
    named("jmmlu").write([question], tmp_path / "a.csv")
    assert named("jmmlu").read(tmp_path / "a.csv") == [question]
    half = replace(question, text="\ud83d")
    named("plain").write([half], tmp_path / "half.jsonl")
    assert named("plain").read(tmp_path / "half.jsonl") == [half]
    with pytest.raises(UserError, match="lone surrogate"):
        named("jmmlu").write([half], tmp_path / "half.csv")


def test_science_exam_with_and_without_answers(tmp_path):
    header = ("id", "prompt", "A", "B", "C", "D", "E")
    train = write_rows(tmp_path / "train.csv", (*header, "answer"), ("007", "Why?", "a", "b", "c", "", "", "C"))
    test = write_rows(tmp_path / "test.csv", header, ("0", "Why?\nSo?", "a", "b", "c", "d", "e"))
    assert recognised(train).name == recognised(test).name == "science_exam"
    assert named("science_exam").read(train) == [Question("007", "Why?", ("a", "b", "c"), 2)]
    assert named("science_exam").read(test) == [Question("0", "Why?\nSo?", ("a", "b", "c", "d", "e"))]
    named("science_exam").write(named("science_exam").read(test), tmp_path / "back.csv")
    assert cells_of(tmp_path / "back.csv") == cells_of(test)


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("plain", ['{"question": "x'], r"rows.jsonl:2 \(not JSON: Unterminated"),
        ("plain", ["[]"], r"rows.jsonl:2 \(not a JSON object"),
        ("plain", [{"options": ["a", "b"]}], r"rows.jsonl:2 \(lacks question\)"),
        ("plain", [{"question": 1, "options": ["a", "b"]}], r"rows.jsonl:2 \(question is int"),
        ("plain", ["", {"question": "q", "options": ["a"]}], r"rows.jsonl:3 \(1 options, at least 2"),
        ("plain", [{"question": "q", "options": list(map(str, range(201)))}], "201 options, at most 200"),
        ("plain", [{"question": "q", "options": ["a", "b"], "answer": 2}], r"rows.jsonl:2 \(answer 2 is outside"),
        ("plain", [{"question": "q", "options": ["a", "b"], "answer": True}], "answer is True"),
        ("plain", [{"question": "q", "options": ["a", 2], "answer": 0}], "options is not a list of texts"),
        ("plain", [{"id": 1.5, "question": "q", "options": ["a", "b"]}], "id is 1.5"),
        ("jaqket", [{"question": "q", "answer_candidates": ["a", "b"], "answer_entity": "c"}], "'c' is not among"),
        ("jcommonsenseqa", [{"question": "q", "choice0": "a"}], "lacks choice1"),
        ("instruction", [{"instruction": "問題: q\n0: a\n1: b", "output": "1: a"}], "'1: a' contradicts option 1, 'b'"),
        ("instruction", [{"instruction": "問題: q\n1: a\n2: b", "output": "0: a"}], "outside the options 1 to 2"),
        (
            "instruction",
            [{"instruction": "問題: q\n0: 1\n1: 2", "output": "1"}],
            "the number of one option and",
        ),
        ("instruction", [{"instruction": "0: a\n1: b", "output": "0"}], "no line 問題"),
        ("instruction", [{"instruction": "問題: q\n0: a\n1: b\n\nよ", "output": "1: b\n\nよ"}], "contradicts option 1"),
        ("plain", [{"id": "a\nb", "question": "q", "options": ["a", "b"]}], r"rows.jsonl:2 \(id 'a\\nb', expected one"),
        ("plain", ['{"id": "\\ud83d", "question": "q", "options": ["a", "b"]}'], r"rows.jsonl:2 \(id '\\ud83d', exp"),
        ("plain", ['{"id": %s}' % ("9" * 5000)], r"rows.jsonl:2 \(not JSON: a number of more than 4,300 digits"),
        ("instruction", [{"instruction": "問題: q", "output": "0"}], "no lines such as"),
    ],
)
def test_json_faults_name_file_and_line(tmp_path, name, rows, expected):
    sound = {
        "plain": {"question": "q", "options": ["a", "b"]},
        "jaqket": JAQKET[0],
        "jcommonsenseqa": {"question": "q"} | {f"choice{i}": str(i) for i in range(5)},
        "instruction": COURSE[0],
    }
    path = write_lines(tmp_path / "rows.jsonl", sound[name], *rows)
    assert recognised(path).name == name
    with pytest.raises(UserError, match=expected):
        named(name).read(path)
    assert len(named(name).scan(path, Faults())) == 1


def test_only_the_first_five_faults_are_shown(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", *['{"question": "q"}'] * 7)
    with pytest.raises(UserError, match=r"7 rows are faulty: rows.jsonl:1 .*rows.jsonl:5 \(lacks options\) and 2 more"):
        named("plain").read(path)


def test_csv_faults_name_the_line_on_which_the_row_begins(tmp_path):
    path = write_rows(tmp_path / "law.csv", ("q\nq", "a", "b", "B"), ("q", "a", "b", "C"), ("q", "a", "B"))
    with pytest.raises(UserError, match=r"law.csv:3 \(answer 'C' is outside the options A to B\), law.csv:4 \(3 cells"):
        named("jmmlu").read(path)
    header = ("id", "prompt", "A", "B", "C", "D", "E", "answer")
    exam = write_rows(tmp_path / "train.csv", header, ("0", "q\n", *"abcde", "A"), ("1", "q", *"abcde", "AB"))
    with pytest.raises(UserError, match=r"train.csv:4 \(answer 'AB'"):
        named("science_exam").read(exam)


def test_files_that_are_no_quiz(tmp_path):
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "sjis.csv").write_bytes("「問題」とは何ですか?,あか,あお,A\n".encode("cp932"))
    (tmp_path / "cut.json").write_text(
        '[{"instruction": "問題: q\\n0: a\\n1: b", "output": "0"},\n{"instr', encoding="utf-8"
    )
    for name, expected in {
        "absent.json": "is not there",
        "empty.jsonl": "is empty",
        "other.csv": "in no quiz format",
        "sjis.csv": "looks like cp932",
        "cut.json": "line 2, row 2: Unterminated string",
    }.items():
        with pytest.raises(UserError, match=expected):
            recognised(tmp_path / name).read(tmp_path / name)


def test_bom_is_accepted(tmp_path):
    path = tmp_path / "bom.jsonl"
    path.write_text('{"question": "q", "options": ["a", "b"]}', encoding="utf-8-sig")
    assert named("plain").read(path) == [Question("bom-1", "q", ("a", "b"))]


@pytest.mark.parametrize(
    ("name", "question", "expected"),
    [
        ("jcommonsenseqa", Question("9", "q", ("a", "b"), 0), "id 9 .2 options where exactly 5"),
        ("science_exam", Question("9", "q", tuple("abcdef"), 0), "6 options, at most 5"),
        ("science_exam", Question("9", "q", ("a", ""), 0), "last option is empty"),
        ("jmmlu", Question("9", "q", tuple("abcdefghijklmnopqrs"), 0), "19 options, at most 18"),
        ("jmmlu", Question("9", "q", ("a", "b"), 0, "../x"), "no file can be named after"),
        ("jmmlu", Question("9", "q", ("a", "b"), 0, "長" * 100), "no file can be named after"),
        ("jmmlu", Question("9", "q", ("a", "b"), 0, "\ud83d"), "no file can be named after"),
        ("jaqket", Question("9", "q", ("a", ""), 1), r"id 9 \(its answer is an empty option"),
        ("science_exam", Question("9", "q", ("a", "b"), 0, "", {"\ud83d": "x"}), "lone surrogate"),
        ("plain", Question("9", "q", ("a", "b"), 0, "", {"answer": "a"}), "further key answer has another meaning"),
    ],
)
def test_a_format_refuses_what_it_cannot_hold(tmp_path, name, question, expected):
    with pytest.raises(UserError, match=expected):
        named(name).write([question], tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_filled_folder_is_not_overwritten(tmp_path):
    question = Question("9", "q", ("a", "b"), 0, "x")
    named("jmmlu").write([question], tmp_path / "out")
    with pytest.raises(UserError, match="already there"):
        named("jmmlu").write([question], tmp_path / "out")


def test_unknown_format_name():
    with pytest.raises(UserError, match="did you mean 'jaqket'"):
        named("jacket")
    assert len({quiz_format.name for quiz_format in FORMATS.all()}) == 7


NEW_FORMAT = """
from nexttoken.tasks.quiz_formats.json_quizzes import Plain


class Shouted(Plain):
    name = "shouted"
    position = 0
    known_by = frozenset({"question", "options", "loud"})


FORMATS = (Shouted(),)
"""


def test_a_format_is_a_file_in_the_folder_and_nothing_else_is_edited(tmp_path, monkeypatch):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "shouted.py").write_text(NEW_FORMAT)
    package = nexttoken.tasks.quiz_formats
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "package")])
    row = {"question": "q", "options": ["a", "b"]}
    assert recognised(write_lines(tmp_path / "one.jsonl", row | {"loud": True})).name == "shouted"
    assert recognised(write_lines(tmp_path / "two.jsonl", row)).name == "plain"
    assert named("shouted").read(tmp_path / "two.jsonl") == named("plain").read(tmp_path / "two.jsonl")


def test_a_list_within_the_question_is_not_its_options():
    parsed = parse("問題: 順に並べると?\n0: ア\n1: イ\n選択肢\n0: アイ\n1: イア\n### 回答:")
    assert parsed.options == ("アイ", "イア")
    assert parsed.text == "順に並べると?\n0: ア\n1: イ"


@given(st.integers(2, 20), st.integers(2, 18), st.integers(0, 3), st.data())
@settings(deadline=None)
def test_the_cut_keeps_the_right_one_and_depends_on_seed_and_id_alone(count, num_options, seed, data):
    options = tuple(f"o{index}" for index in range(count))
    question = Question(data.draw(st.text()), "q", options, data.draw(st.integers(0, count - 1)))
    indices = draw_options(question, num_options, seed)
    assert indices == draw_options(replace(question, text="other", genre="x"), num_options, seed)
    assert len(indices) == len({*indices}) == min(count, num_options)
    asked = choose(question, indices)
    assert asked.options[asked.answer] == options[question.answer]


def test_the_cut_is_the_same_everywhere_and_the_right_one_stands_anywhere():
    options = tuple(f"o{index}" for index in range(20))
    cuts = [draw_options(Question(f"q{row}", "q", options, 0), 5, 0) for row in range(500)]
    assert (
        cuts[0]
        == draw_options(Question("q0", "q", options, 0), 5, 0)
        != draw_options(Question("q0", "q", options, 0), 5, 1)
    )
    places = [cut.index(0) for cut in cuts]
    assert all(70 < places.count(place) < 130 for place in range(5))
    assert {index for cut in cuts for index in cut} == {*range(20)}
    with pytest.raises(RowFault, match="not known"):
        draw_options(Question("q", "q", options), 5, 0)


@pytest.mark.parametrize(
    ("text", "question", "options", "first"),
    [
        ("問題: どれ?\n0: zero\n選択肢\n1: a\n2: b", "どれ?\n0: zero", ("a", "b"), 1),
        ("問題: どれ?\n0: zero\nではないのは?\n1: a\n2: b\n3: c", "どれ?\n0: zero\nではないのは?", ("a", "b", "c"), 1),
        ("問題: 順は?\n1: ア\n2: イ\n選択肢\n1: アイ\n2: イア", "順は?\n1: ア\n2: イ", ("アイ", "イア"), 1),
        ("問題: q\n0: a\n\n1: b\n\n番号で答えよ。\n### 回答:", "q", ("a", "b"), 0),
        ("問題: q\n1: a\n続き\n2: b\nも続く", "q", ("a\n続き", "b\nも続く"), 1),
        ("次の問題：を読め。\n問題: q\n0: a\n1: b", "q", ("a", "b"), 0),
    ],
)
def test_the_last_run_of_numbered_lines_is_the_options(text, question, options, first):
    parsed = parse(text)
    assert (parsed.text, parsed.options, parsed.first) == (question, options, first)


def test_repeated_candidates_are_drawn_once():
    options = ("A",) * 10 + ("B",) * 10
    asked = choose(question := Question("q", "?", options, 12), draw_options(question, 5, 0))
    assert sorted(asked.options) == ["A", "B"]
    assert asked.options[asked.answer] == "B"
    assert draw_options(replace(question, answer=None), 5, 0) == (0, 10)
    many = Question("q", "?", tuple(f"o{index % 10}" for index in range(20)), 13)
    assert all(len({*choose(many, draw_options(many, 5, seed)).options}) == 5 for seed in range(20))
    with pytest.raises(RowFault, match="all candidates are the same"):
        draw_options(Question("q", "?", ("A",) * 20, 0), 5, 0)


def test_elements_of_an_array_on_one_line_are_named_by_number(tmp_path):
    sound = {"question": "q", "options": ["a", "b"]}
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([sound] * 6 + [{"question": "q"}]))
    with pytest.raises(UserError, match=r"rows.json, row 7 \(lacks options\)"):
        named("plain").read(path)
    path.write_text(json.dumps([sound, {"question": "q"}], indent=1))
    with pytest.raises(UserError, match=r"rows.json:9 \(lacks options\)"):
        named("plain").read(path)
    path.write_text('[{"question": "q", "options": ["a", "b"]}, {"question": %s}]' % ("9" * 5000))
    with pytest.raises(UserError, match="line 1, row 2: a number of more than 4,300 digits"):
        named("plain").read(path)


def test_packed_tables(tmp_path):
    header = ("id", "prompt", "A", "B", "C", "D", "E", "answer")
    exam = write_rows(tmp_path / "train.csv", header, ("0", "q\r\n", *"abcde", "B"))
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(exam.read_bytes()))
    assert recognised(tmp_path / "train.csv.gz").name == "science_exam"
    assert named("science_exam").read(tmp_path / "train.csv.gz") == named("science_exam").read(exam)
    (tmp_path / "bad.csv.gz").write_bytes(gzip.compress(b"id,prompt,A,B,C,D,E\n,q,a,b,,,\n"))
    with pytest.raises(UserError, match=rf"^{tmp_path}/bad.csv.gz: 1 row is faulty: bad.csv.gz:2 \(id ''"):
        named("science_exam").read(tmp_path / "bad.csv.gz")
    law = write_rows(tmp_path / "law.csv", ("q", "a", "b", "B"))
    (tmp_path / "law.csv.gz").write_bytes(gzip.compress(law.read_bytes()))
    assert named("jmmlu").read(tmp_path / "law.csv.gz") == named("jmmlu").read(law)


def test_an_id_of_many_digits_stays_text(tmp_path):
    question = Question("9" * 5000, "q", tuple("abcde"), 0)
    named("jcommonsenseqa").write([question], tmp_path / "q.json")
    assert named("jcommonsenseqa").read(tmp_path / "q.json") == [question]
