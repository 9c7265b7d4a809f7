"""Dialogues: the user begins in whatever a file holds, windows lose no turn, and a persona costs its words once."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from nexttoken.data.near_duplicates import group_ids
from nexttoken.data.run_names import default_name
from nexttoken.errors import UserError
from nexttoken.tasks.dialogue import Dialogue
from nexttoken.transforms import apply_transforms
from nexttoken.transforms.dialogue import Persona, Windows, replies
from nexttoken.types import DIALOGUE, Example, TextPredictions
from support.composed import composed

NAME, SENTENCE = "ソクラテスさん。", "あなたは古代ギリシャの哲学者ソクラテスです。"


def write(path: Path, *rows: Any) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def turns(spoken: str, **names: str) -> list[dict[str, str]]:
    """`uau`: turns of user, assistant, user, each with its letter and place as its text."""
    of = {"u": "user", "a": "assistant", "s": "system"} | names
    return [{"speaker": of[who], "utterance": f"{who}{place}"} for place, who in enumerate(spoken)]


def messages(spoken: str) -> list[dict[str, str]]:
    return [{"role": turn["speaker"], "content": turn["utterance"]} for turn in turns(spoken)]


def task(folder: Path, **settings: Any) -> Dialogue:
    return Dialogue("dialogue", folder, **settings)


def dialogue(num_answers: int, row_id: str = "d", has_answer: bool = True) -> Example:
    """u1, a1, u2, ... with `num_answers` answers, the last of them the one that is asked for."""
    said = [f"{who}{number}" for number in range(1, num_answers + 1) for who in "ua"]
    return Example(
        row_id, {"dialogue": tuple(said[:-1])}, tags={"dialogue": row_id}, answer=said[-1] if has_answer else None
    )


def said(example: Example) -> str:
    return " ".join((*example.fields["dialogue"], example.answer or "?"))


@pytest.mark.parametrize(
    ("spoken", "read"),
    [
        ("uaua", "u0 a1 u2 a3"),
        ("auaua", "u1 a2 u3 a4"),  # the assistant's opening goes
        ("uauau", "u0 a1 u2 a3"),  # and what the user says last without an answer
        ("auau", "u1 a2"),
        ("uuaa", "u0\nu1 a2\na3"),
        ("aauaa", "u2 a3\na4"),
    ],
)
def test_training_dialogues_begin_with_the_user_and_end_with_an_answer(spoken: str, read: str, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"id": 1, "turns": turns(spoken)}, {"id": 2, "messages": messages(spoken)})
    assert [said(example) for example in task(tmp_path).read("train")] == [read, read]


def test_what_is_changed_is_counted_and_named(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "train.jsonl", *({"turns": turns(spoken)} for spoken in ("auaa", "aua", "uau", "ua")))
    task(tmp_path).read("train")
    assert caplog.messages == [
        "turns of one speaker in a row are joined: 1 row (train.jsonl:1)",
        "the assistant spoke first, and that turn is left out: 2 rows (train.jsonl:1, train.jsonl:2)",
        "the user's last turn has no answer and is left out: 1 row (train.jsonl:3)",
    ]


def test_test_rows_end_with_the_user_or_have_a_reference(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", *({"id": spoken, "turns": turns(spoken)} for spoken in ("uau", "auau", "u", "ua")))
    examples = task(tmp_path).read("test")
    assert [(example.id, said(example)) for example in examples] == [
        ("uau", "u0 a1 u2 ?"),
        ("auau", "u1 a2 u3 ?"),
        ("u", "u0 ?"),
        ("ua", "u0 a1"),
    ]


def test_a_system_message_opens_the_users_turn_and_a_system_speaker_answers(tmp_path: Path) -> None:
    write(
        tmp_path / "train.jsonl",
        {"messages": messages("sua")},
        {"turns": turns("usus")},
        {"messages": messages("saua")},
    )
    assert [said(example) for example in task(tmp_path).read("train")] == ["s0\n\nu1 a2", "u0 s1 u2 s3", "s0\n\nu2 a3"]
    write(tmp_path / "train.jsonl", {"messages": messages("usus")})
    with pytest.raises(UserError, match=r"task.assistant=\[system\]"):
        task(tmp_path).read("train")
    assert said(task(tmp_path, assistant=["system"]).read("train")[0]) == "u0 s1 u2 s3"


def test_speakers_can_be_named(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"turns": turns("ua", u="弟子", a="師")})
    with pytest.raises(UserError, match="unknown speaker '弟子', expected one of user, human"):
        task(tmp_path).read("train")
    assert said(task(tmp_path, user="弟子", assistant=["師"]).read("train")[0]) == "u0 a1"
    with pytest.raises(UserError, match=r"師 is in task.user and task.assistant"):
        task(tmp_path, user=["師"], assistant="師")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"turns": [*turns("ua"), {"speaker": "user", "utterance": " "}]}, "turn 3 is empty"),
        ({"turns": [*turns("u"), {"speaker": "assistant", "utterance": None}]}, "utterance of turn 2 is NoneType"),
        ({"turns": [*turns("u"), {"speaker": "clerk", "utterance": "x"}]}, "unknown speaker 'clerk'"),
        ({"turns": [*turns("u"), {"speaker": ["user"], "utterance": "x"}]}, "unknown speaker"),
        ({"turns": [*turns("u"), {"utterance": "x"}]}, "turn 2 lacks speaker or role or from"),
        ({"turns": [*turns("u"), "x"]}, "turn 2 is no object"),
        ({"turns": turns("u")}, "fewer than 2 turns"),
        ({"turns": turns("a")}, "the user says nothing"),
        ({"messages": messages("s")}, "the user says nothing"),
        ({"turns": []}, "turns is not a list of at least one turn"),
        ({"text": "x"}, "lacks turns or messages"),
    ],
)
def test_a_dialogue_that_is_none_is_named(row: dict, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"id": 1, "turns": turns("ua")}, {"id": 2, **row})
    with pytest.raises(UserError) as error:
        task(tmp_path).read("train")
    assert str(error.value).startswith(f"1 row is faulty: train.jsonl:2 ({reason}")
    assert [example.id for example in task(tmp_path, skip_faulty=True).read("train")] == ["1"]


def test_tags_tell_what_the_file_says(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", {"dialogue_id": "x/1", "services": ["A", "B"], "mark": 3, "turns": turns("ua")})
    [example] = task(tmp_path).read("train")
    assert example.id == "x/1"
    assert example.tags == {"services": "A, B", "mark": "3", "file": "train.jsonl", "dialogue": "x/1"}


def test_a_submission_answers_the_test_dialogues(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", {"id": 5, "turns": turns("u")}, {"id": "b", "turns": turns("uau")})
    task(tmp_path).write(TextPredictions(("b", "5"), ("yes", "no")), tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"task_id": 5, "output": "no"}, {"task_id": "b", "output": "yes"}]


def test_windows_step_from_answer_to_answer() -> None:
    assert [said(window) for window in Windows(2)([dialogue(3)])] == ["u1 a1", "u2 a2", "u3 a3"]
    assert [said(window) for window in Windows(4)([dialogue(3)])] == ["u1 a1 u2 a2", "u2 a2 u3 a3"]
    assert [said(window) for window in Windows(4, first=1)([dialogue(3)])] == ["u1 a1 u2 a2"]
    assert [said(window) for window in Windows(4)([dialogue(1)])] == ["u1 a1"], "a shorter dialogue is not lost"
    windows = Windows(2)([dialogue(2)])
    assert [(window.id, window.tags["dialogue"]) for window in windows] == [("d#1", "d"), ("d#2", "d")]
    assert Windows(2)([dialogue(3, has_answer=False)]) == [dialogue(3, has_answer=False)]


@pytest.mark.parametrize(("opened", "number"), [(False, 12), (True, 11)])
def test_twelve_round_trips_give_twelve_windows_or_the_published_eleven(
    opened: bool, number: int, tmp_path: Path
) -> None:
    write(tmp_path / "train.jsonl", {"turns": turns(("au" if opened else "ua") * 12)})
    windows = Windows(2)(task(tmp_path).read("train"))
    assert len(windows) == number
    assert all(window.fields["dialogue"][0].startswith("u") and window.answer.startswith("a") for window in windows)


@pytest.mark.parametrize(
    "make", [lambda: Windows(3), lambda: Windows(0), lambda: Windows(2, 0), lambda: replies([], 1)]
)
def test_windows_that_cannot_be_cut_are_refused(make) -> None:
    with pytest.raises(UserError, match="expected"):
        make()


@pytest.mark.parametrize("prefix", [NAME, SENTENCE])
def test_a_persona_costs_its_words_once_a_window_before_or_after_cutting(prefix: str) -> None:
    whole, persona = [dialogue(11), dialogue(1, "e")], Persona(prefix)
    for cut in (Windows(2), Windows(4), Windows(2, first=1)):
        before = apply_transforms(whole, {"persona": persona, "windows": cut})
        after = apply_transforms(whole, {"windows": cut, "persona": persona})
        assert before == after
        plain = cut(whole)
        assert [said(window) for window in before] == [prefix + said(window) for window in plain]
    assert [said(reply) for reply in replies(persona(whole), 4)] == [
        prefix + said(reply) for reply in replies(whole, 4)
    ]


def test_a_persona_leaves_the_folds_as_they_are(tmp_path: Path) -> None:
    instruct, rows = task(tmp_path), [dialogue(3), dialogue(2, "e")]
    assert [instruct.group_text(row) for row in Persona(SENTENCE)(rows)] == [instruct.group_text(row) for row in rows]


def test_every_answer_is_asked_for_once_with_at_most_so_many_turns() -> None:
    asked = replies([dialogue(3), dialogue(1, "e")], 4)
    assert [(reply.id, said(reply)) for reply in asked] == [
        ("d#1", "u1 a1"),
        ("d#2", "u1 a1 u2 a2"),
        ("d#3", "u2 a2 u3 a3"),
        ("e#1", "u1 a1"),
    ]
    assert [said(reply) for reply in replies([dialogue(3)], 2)] == ["u1 a1", "u2 a2", "u3 a3"]
    assert sorted(reply.answer for reply in replies([dialogue(9)], 6)) == sorted(f"a{k}" for k in range(1, 10))


def test_a_row_without_an_answer_is_asked_under_its_own_id() -> None:
    asked = dialogue(3, has_answer=False)
    assert [(reply.id, said(reply)) for reply in replies([asked], 4)] == [("d", "u2 a2 u3 ?")]
    assert replies([asked], 100) == [asked]


VARIANTS = [
    (cut, who)
    for cut in ("windows_all_2", "windows_first_2", "windows_first_4")
    for who in ("none", "persona_short", "persona_full")
]


def test_the_sweep_is_nine_variants_under_nine_names() -> None:
    from hydra import compose, initialize_config_dir

    from support.composed import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("train", ["experiment=socrates_variants"], return_hydra_config=True)
    swept = config.hydra.sweeper.params
    jobs = [(cut, who) for cut in swept.train_transforms.split(",") for who in swept.transforms.split(",")]
    assert jobs == VARIANTS
    overrides = [["experiment=socrates_variants", f"train_transforms={cut}", f"transforms={who}"] for cut, who in jobs]
    assert len({default_name("input/sample-dialogue", given) for given in overrides}) == 9


@pytest.mark.parametrize(("cut", "who"), VARIANTS)
def test_a_variant_has_the_published_number_of_examples_and_prefixes(cut: str, who: str) -> None:
    """242 dialogues of 12 rounds, opened by the assistant: 2,662 windows of two, or one of two or four each."""
    from nexttoken.data.targets import make

    config = composed("task=dialogue", "experiment=socrates_variants", f"train_transforms={cut}", f"transforms={who}")
    steps = make(config["transforms"], "transforms") | make(config["train_transforms"], "train_transforms")
    rows = apply_transforms([dialogue(11, f"d{number}") for number in range(242)], steps)
    assert len(rows) == (2662 if cut == "windows_all_2" else 242)
    assert {len(row.fields["dialogue"]) + 1 for row in rows} == {int(cut[-1])}
    prefix = {"none": "", "persona_short": NAME, "persona_full": SENTENCE}[who]
    assert all(row.fields["dialogue"][0].startswith(f"{prefix}u") for row in rows)
    assert sum(said(row).count(prefix) for row in rows) == len(rows) if prefix else True


def test_real_dialogues_are_read_cut_and_asked(shared_dir: Path) -> None:
    """Schema-guided dialogues: 1,200 of 12 to 40 turns, the assistant called system."""
    examples = task(shared_dir / "data" / "dialogues", train_files=["sgd-1200.jsonl"], test_files=["none-*"]).read(
        "train"
    )
    assert len(examples) == 1200
    num_answers = sum((len(example.fields["dialogue"]) + 1) // 2 for example in examples)
    assert len(Windows(2)(examples)) == len(replies(examples, 4)) == num_answers
    assert len(Windows(4, first=1)(examples)) == 1200
    assert all(text.strip() for example in examples for text in (*example.fields["dialogue"], example.answer))
    assert len(set(group_ids([task(shared_dir).group_text(example) for example in examples[:50]]))) == 50


def test_speakers_are_known_in_capitals_and_small_letters(tmp_path: Path) -> None:
    turns = [{"speaker": "User", "utterance": "Hi."}, {"speaker": "ASSISTANT", "utterance": "Hello."}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"id": "007", "turns": turns}), encoding="utf-8")
    (example,) = Dialogue("dialogue", tmp_path).read("train")
    assert (example.id, example.fields[DIALOGUE], example.answer) == ("007", ("Hi.",), "Hello.")


def weighed(spoken: str, **weights: Any) -> dict[str, Any]:
    """A row of messages; `t1={"weight": 0}` adds to the message in that place."""
    return {"messages": [message | weights.get(f"t{n}", {}) for n, message in enumerate(messages(spoken))]}


@pytest.mark.parametrize("flag", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_an_answer_of_no_weight_is_read_and_never_learnt(flag: dict, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", weighed("uauaua", t1=flag, t3={"weight": 1}))
    (example,) = task(tmp_path).read("train")
    assert (said(example), example.learns) == ("u0 a1 u2 a3 u4 a5", (False, True, True))
    assert [(one.id, said(one)) for one in replies([example], 4)] == [
        ("train-1#2", "u0 a1 u2 a3"),
        ("train-1#3", "u2 a3 u4 a5"),
    ]
    assert [said(one) for one in Windows(2)([example])] == ["u2 a3", "u4 a5"]
    assert [(said(one), one.learns) for one in Windows(4)([example])] == [
        ("u0 a1 u2 a3", (False, True)),
        ("u2 a3 u4 a5", ()),
    ]
    assert [said(one) for one in Windows(2, first=1)([example])] == ["u2 a3"]


def test_turns_after_the_last_answer_that_is_learnt_are_left_out(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "train.jsonl", weighed("uauaua", t5={"weight": 0}), weighed("ua", t1={"weight": 1}))
    write(tmp_path / "test.jsonl", weighed("uaua", t3={"weight": 0}))
    examples = task(tmp_path).read("train")
    assert [(said(example), example.learns) for example in examples] == [("u0 a1 u2 a3", ()), ("u0 a1", ())]
    assert caplog.messages == ["turns after the last answer that is learnt are left out: 1 row (train.jsonl:1)"]
    assert [said(example) for example in task(tmp_path).read("test")] == ["u0 a1 u2 a3"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (weighed("ua", t1={"weight": 0.5}), "weight of turn 2 is 0.5, expected 0 or 1"),
        (weighed("ua", t1={"mask": False}), "mask of turn 2 is not read; write weight 0 or 1 beside its text"),
        (weighed("ua", t1={"Train": False}), "Train of turn 2 is not read"),
        (weighed("ua", t1={"loss_weight": 0.0}), "loss_weight of turn 2 is not read"),
        (weighed("ua", t1={"content": [{"text": "a", "weight": 0}]}), "weight of turn 2 is not read"),
        (weighed("ua", t1={"weight": "0"}), "weight of turn 2 is '0', expected 0 or 1"),
        (weighed("ua", t1={"train": 2}), "train of turn 2 is 2, expected 0 or 1"),
        (weighed("ua", t1={"weight": 1, "train": False}), "weight and train of turn 2 differ"),
        (weighed("uaua", t1={"weight": 0}, t3={"weight": 0}), "no answer to learn from: the weight of each is 0"),
        (weighed("uaa", t1={"weight": 0}), "turns of the assistant in a row, of which one is to be learnt"),
    ],
)
def test_a_weight_that_cannot_be_honoured_is_named(row: dict, reason: str, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", weighed("ua"), row)
    with pytest.raises(UserError, match=re.escape(f"train.jsonl:2 ({reason}")):
        task(tmp_path).read("train")


def test_a_users_turn_that_is_to_be_learnt_is_said_to_be_only_read(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "train.jsonl", weighed("ua", t0={"train": True}, t1={"train": True}))
    assert task(tmp_path).read("train")[0].learns == ()
    assert caplog.messages == [
        "a turn that is to be learnt is not the assistant's, and is only read: 1 row (train.jsonl:1)"
    ]
