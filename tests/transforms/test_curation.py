"""Curation steps: what each drops, keeps and counts, and that a list and a stream give the same rows."""

import json
import os
from itertools import pairwise

import pytest

from benchmarks.curation_noise.noise import draw_rows
from nexttoken.data.words import japanese_only, simplified
from nexttoken.errors import UserError
from nexttoken.transforms.curation.language import KeepLanguage, language_letters, language_of
from nexttoken.transforms.curation.marks import KeepMarked
from nexttoken.transforms.curation.rare import DropRareCharacters
from nexttoken.transforms.curation.repeats import DropNearDuplicates, DropRepeats
from nexttoken.transforms.curation.scripts import DropMojibake, DropScripts
from nexttoken.transforms.curation.step import CHUNK
from nexttoken.transforms.curation.stream import Spool, chunks, curate, dump, in_order, stages
from nexttoken.transforms.curation.words import DropEmpty, DropWords, Lengths, Replace
from nexttoken.types import DIALOGUE, INPUT, INSTRUCTION, Example

JAPANESE = "日本で一番高い山は富士山です。標高は三千七百七十六メートルあります。"


def row(answer="はい、そうです。", instruction="日本で一番高い山は何ですか。", context="", row_id="r1"):
    return Example(row_id, {INSTRUCTION: (instruction,), INPUT: (context,)}, answer=answer)


def rows(*answers):
    return [row(answer, row_id=f"r{number}") for number, answer in enumerate(answers)]


def dropped(step, example):
    return not step([example])


def test_a_report_counts_the_last_call_only_and_can_be_written():
    step = DropWords(words=["禁止"])
    step(rows("禁止です", "よい", "禁止", "よい"))
    report = step.report()
    assert (report["kept"], report["dropped"], report["changed"]) == (2, 2, 0)
    assert report["reasons"] == {"answered: 禁止": 2}
    assert report["examples"][0] == {
        "id": "r0",
        "reason": "answered: 禁止: 禁止です",
        "text": "日本で一番高い山は何ですか。 | 禁止です",
    }
    step(rows("よい"))
    assert json.loads(json.dumps(step.report())) == {
        "kept": 1,
        "dropped": 0,
        "changed": 0,
        "reasons": {},
        "examples": [],
    }


def test_three_dropped_rows_of_each_reason_are_shown():
    step = DropEmpty()
    step(rows(*[""] * 9))
    assert step.report()["dropped"] == 9
    assert [example["id"] for example in step.report()["examples"]] == ["r0", "r1", "r2"]
    step = DropWords(words=["aide", "GPT-4"])
    step(rows(*["GPT-4です"] * 9, f"{'長い文。' * 30}She works as an aide. {'長い文。' * 30}"))
    shown = [(example["id"], example["reason"]) for example in step.report()["examples"]]
    assert shown == [
        *((f"r{number}", "answered: GPT-4: gpt-4です") for number in range(3)),
        ("r9", "answered: aide: 長い文。she works as an aide. 長い文。長い文。長い文。長い文。長い"),
    ]


@pytest.mark.parametrize(
    ("word", "found", "kept"),
    [
        ("as an ai", ["as an AI", "「As an AI」", "as  an\nAI,"], ["She works as an aide.", "was an ai", "as anai"]),
        ("language model", ["language models", "a language model."], ["language modeling", "sublanguage model"]),
        ("GPT-4", ["GPT-4o", "GPT-4です", "gpt-4."], ["GPT-41", "xGPT-4", "GPT-"]),
        (
            "私はClaude",
            ["私は Claude です", "私はclaudeだ", "私はClaude2"],
            ["私はClaudette", "私はクロード・モネ(Claude Monet)"],
        ),
        ("www.", ["www.a.jp", "(www.a)"], ["awww."]),
        ("</", ["a</b>"], ["a<b>"]),
        ("нет", ["Ответ: нет."], ["интернет", "нету"]),
        ("禁止", ["立入禁止区域"], ["禁煙"]),
        ("Café", ["un CAFÉ.", "cafés"], ["cafétéria"]),
    ],
)
def test_words_are_whole_words_where_their_script_has_words(word, found, kept):
    step = DropWords(words=[word])
    assert [text for text in found if not dropped(step, row(text))] == []
    assert [text for text in kept if dropped(step, row(text))] == []


def test_words_are_found_in_any_case_on_the_sides_asked_for():
    step = DropWords(words=["As an AI"], sides=["answered"])
    assert dropped(step, row("as an ai, I cannot"))
    assert not dropped(step, row("よい", instruction="「As an AI」とは何ですか。"))


@pytest.mark.parametrize("words", [[], ["a", ""]])
def test_words_that_every_row_has_are_refused(words):
    with pytest.raises(UserError, match="list texts to drop"):
        DropWords(words=words)


def test_an_unknown_side_is_refused():
    with pytest.raises(UserError, match="choose from asked, answered"):
        DropWords(words=["x"], sides=["answer"])


def test_replacements_are_done_in_order_on_every_text_and_counted():
    step = Replace({"ソフトウエア": "ソフトウェア", "ェア": "ェアー"})
    changed, same = step([row("ソフトウエアです", "ソフトウエア", "ソフトウエア"), row("よい")])
    assert changed.fields == {INSTRUCTION: ("ソフトウェアー",), INPUT: ("ソフトウェアー",)}
    assert changed.answer == "ソフトウェアーです"
    assert same == row("よい")
    assert (step.report()["changed"], step.report()["dropped"]) == (1, 0)


def test_every_turn_of_a_dialogue_is_looked_at_and_replaced():
    dialogue = Example("d", {DIALOGUE: ("一つ目", "答えA", "二つ目")}, answer="最後")
    (changed,) = Replace({"A": "B"})([dialogue])
    assert changed.fields[DIALOGUE] == ("一つ目", "答えB", "二つ目")
    assert dropped(DropWords(words=["答え"], sides=["answered"]), dialogue)
    assert not dropped(DropWords(words=["答え"], sides=["asked"]), dialogue)


@pytest.mark.parametrize("answer", ["", "  \n", "　", "…", "。", "---", None])
def test_answers_of_marks_alone_are_empty(answer):
    assert dropped(DropEmpty(), row(answer))


@pytest.mark.parametrize("answer", ["4", "○", "+", "👍", "あ"])
def test_answers_of_one_character_are_answers(answer):
    assert not dropped(DropEmpty(), row(answer))


def test_short_is_the_instruction_whatever_its_input_and_long_is_the_side():
    step = Lengths(asked=(3, 20), answered=(1, 5))
    assert dropped(step, row("よい", "あ", "十分に長い入力です"))
    assert dropped(step, row("よい", "十分に長い指示です", "入力" * 10))
    assert dropped(step, row("六文字の答え"))
    assert not dropped(step, row("五文字だ。", "三文字"))


@pytest.mark.parametrize("text", ["안녕", "город", "ตลาด", "سوق", "语言", "ﾡﾢ"])
def test_other_scripts_and_simplified_characters_are_dropped(text):
    assert dropped(DropScripts(), row(f"答えは{text}です"))


@pytest.mark.parametrize(
    "text", ["α線とβ線", "café", "㎏と℃", "剝製を頰張る", "髙橋と﨑", "々〆〇ー", "ｱｲｳ", "１２３ＡＢＣ", "😀"]
)
def test_what_japanese_is_written_with_stays(text):
    assert not dropped(DropScripts(), row(text))


FACES = ["(´Д｀)", "ヽ(ﾟДﾟ)ノ", "щ(ﾟДﾟщ)", "(ﾟДﾟщ)", "（；´д｀）", "( ಠ_ಠ)", "(ง •̀_•́)ง", "(╯°□°）╯", "ﾟДﾟ", "(*´Д`*)", "Σ(ﾟДﾟ)"]


@pytest.mark.parametrize("face", FACES)
def test_letters_of_faces_are_no_foreign_script(face):
    assert not dropped(DropScripts(), row(f"よかったですね{face}。またどうぞ{face}"))
    for foreign in ("город", "(тест!)", "(я, ю)", "문자"):
        assert dropped(DropScripts(), row(f"{face}{foreign}です"))


def test_an_unknown_script_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'CYRILLIC'"):
        DropScripts(allowed=["CYRILIC"])


def test_character_sets_are_of_one_language_only():
    assert {"这", "说", "们", "语"} <= simplified()
    assert {"円", "働", "込", "図"} <= japanese_only()
    assert not simplified() & set("国学会体点日本剝頰塡")


@pytest.mark.parametrize(("written", "read"), [("utf-8", "cp932"), ("utf-8", "latin-1"), ("utf-8", "cp1252"),
                                              ("euc_jp", "cp932"), ("cp932", "utf-8")])  # fmt: skip
def test_text_in_a_wrong_encoding_is_dropped(written, read):
    assert dropped(DropMojibake(), row(JAPANESE.encode(written).decode(read, "replace")))


@pytest.mark.parametrize("text", [JAPANESE, "繧繝と縺れ", "ｶﾞﾝﾊﾞﾚ!", "São Paulo、Málaga、café、naïve"])
def test_sound_text_is_no_mojibake(text):
    assert not dropped(DropMojibake(), row(text))


@pytest.mark.parametrize(
    "text",
    ["経済産業省、新規制度導入検討中", "大阪府大阪市北区梅田一丁目", "一石二鳥、温故知新、四面楚歌",
     "第一次世界大戦終戦記念日", "昭和二十二年二月七日、昭和二十年八月二十五日",
     "佐藤一郎、鈴木花子、田中次郎", "42", "Python", "OK、了解", "富士山"],
)  # fmt: skip
def test_japanese_without_kana_stays(text):
    assert not dropped(KeepLanguage(at_most={"zh": 0.1}), row(text))


@pytest.mark.parametrize(
    "text",
    [
        "今天天气很好，我们去公园散步吧。希望对你有所帮助。",
        "請問您今天要去哪裡？我喜歡在公園裡散步。",
        "It is the highest mountain of Japan.",
    ],
)
def test_answers_in_other_languages_are_dropped(text):
    assert dropped(KeepLanguage(at_most={"zh": 0.1}), row(text))


def test_an_answer_that_goes_over_into_chinese_is_dropped_though_most_of_it_is_japanese():
    answer = JAPANESE * 3 + "這座城市的歷史已經超過一千年，孩子們在學校裡學習音樂和美術。"
    assert language_letters(answer)["ja"] > 0.6 * language_letters(answer).total()
    assert dropped(KeepLanguage(at_most={"zh": 0.1}), row(answer))
    assert not dropped(KeepLanguage(), row(answer))


def test_a_switch_in_mid_sentence_is_seen():
    assert dropped(
        KeepLanguage(at_most={"zh": 0.1}), row("富士山は日本で一番高い山であり，這座城市的歷史已經超過一千年")
    )


def test_english_names_in_a_japanese_answer_stay_and_english_sets_can_be_kept():
    assert not dropped(KeepLanguage(), row("Pythonのpandasで、DataFrameを読み込みます。"))
    english = row("You can see it from Tokyo on clear days.", "Which mountain of Japan is the highest?")
    assert not dropped(KeepLanguage(language="en"), english)
    assert dropped(KeepLanguage(language="en"), row(JAPANESE))
    assert language_of("Which mountain is the highest") == "en"


def test_rows_with_rare_characters_are_dropped_by_the_counts_of_the_whole_set():
    examples = rows(*["山と川"] * 96, "山と鰯", "山と鰯", "鱈と川", "山と川")
    step = DropRareCharacters(at_most=2, most_rows=0.05)
    assert len(step(examples)) == 97
    notes = step.report()["notes"]
    assert notes == {"at_most_usual": 2, "at_most_unusual": 2, "num_characters": 2, "characters": "鰯鱈"}
    assert step.report()["reasons"] == {"a rare character": 3}
    assert len(DropRareCharacters(at_most=2, most_rows=0.02)(examples)) == 99  # 鱈 alone: 鰯 would cost two more


def test_a_small_set_keeps_rows_with_usual_characters_and_says_so():
    step = DropRareCharacters(at_most=19)
    examples = rows(*["日月火水木金土山川海空雲雨雪風"[number % 15] for number in range(45)], "山㐀")
    assert len(step(examples)) == 45
    notice = step.report()["notes"]["notice"]
    assert notice == "usual characters at most 2 times instead of 19, for 3 would cost more than 1.0% of 46 rows"


def test_the_first_of_equal_rows_is_kept_whatever_their_width_and_space():
    first, second, third = (
        row("ABC です。"),
        row("ａｂｃ\nです", row_id="r2"),
        row("ABC です。", "別の問い", row_id="r3"),
    )
    step = DropRepeats()
    assert step([first, second, third, first]) == [first, third]
    assert [example["reason"] for example in step.report()["examples"]] == ["repeats an earlier row: r1"] * 2


def test_near_duplicates_are_dropped_and_other_numbers_are_other_rows():
    text = "温泉は箱根でも珍しいものとして知られています。費用があまりかからないという点も、見逃せない利点です。"
    text += "30人が来ました。"
    step = DropNearDuplicates()
    kept = step(
        rows(text, text.replace("箱根", "別府"), text.replace("30", "40"), "全く別の答えをここに書いておきます。")
    )
    assert [example.id for example in kept] == ["r0", "r2", "r3"]


def test_several_questions_about_one_passage_are_no_near_duplicates():
    passage = "この町の図書館は川の近くにあり、朝から夕方まで人が本を読みに来ます。建物は古い駅を直したものです。" * 2
    asked = [("図書館はどこにありますか。", "川の近くにあります。"), ("建物は以前は何でしたか。", "駅でした。")]
    asked += [("人は少ないですか。", "いいえ。"), ("本を読む人は来ますか。", "はい。"), ("古い建物ですか。", "はい。")]
    tasks = [row(answer, question, passage, f"r{number}") for number, (question, answer) in enumerate(asked)]
    again = row("川の近くにありますよ。", "図書館はどこにありますか。", passage, "again")
    said_otherwise = row("川の近くにあります。", "図書館はどこにあるのですか。", passage, "otherwise")
    assert DropNearDuplicates()([*tasks, again, said_otherwise]) == tasks


def test_numbers_in_kanji_make_other_rows_too():
    texts = [
        f"りんごが三個とみかんが{number}個あるとき、全部でいくつになるのかを漢数字で答えます。" for number in "四五六"
    ]
    assert len(DropNearDuplicates()(rows(*texts))) == 3


def test_marks_decide_and_missing_ones_are_counted(tmp_path):
    path = tmp_path / "marks.csv"
    path.write_text("id,mark,model\nr0,4,x\nr1,2.5,x\n")
    step = KeepMarked(path=str(path), at_least=3)
    assert [example.id for example in step(rows("a", "b", "c"))] == ["r0", "r2"]
    assert step.report()["kept_with"] == {"no mark": 1}
    assert [example.id for example in KeepMarked(str(path), 3, missing="drop")(rows("a", "b", "c"))] == ["r0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("id,score\nr0,1\n", "lacks the columns mark"), ("id,mark\nr0,good\n", r"mark is no number .* r0 \('good'\)"),
     ("id,mark\nr0,1\nr0,2\n", r"marks.csv:3 \(id r0 again")],
)  # fmt: skip
def test_faulty_tables_of_marks_are_named(tmp_path, text, message):
    path = tmp_path / "marks.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        KeepMarked(str(path), 3)(rows("a"))


def all_steps():
    return {
        "replace": Replace({"温泉": "銭湯"}),
        "empty": DropEmpty(),
        "scripts": DropScripts(),
        "rare": DropRareCharacters(at_most=3),
        "language": KeepLanguage(at_most={"zh": 0.1}),
        "repeats": DropRepeats(),
        "near": DropNearDuplicates(),
        "rare_again": DropRareCharacters(at_most=2, most_rows=0.01),
    }


@pytest.fixture(scope="module")
def noisy():
    noise = draw_rows(CHUNK + 300, 0.26, seed=3)
    return [row(one.output, one.instruction, one.input, row_id) for row_id, one in noise.items()]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stream_gives_the_rows_and_reports_of_a_list(noisy, tmp_path, processes):
    on_list, on_stream = all_steps(), all_steps()
    kept = noisy
    for step in on_list.values():
        kept = step(kept)
    spool = curate(iter(noisy), on_stream, tmp_path, len(noisy), processes)
    assert list(spool.rows()) == kept
    assert len(kept) < len(noisy)
    assert {name: step.report() for name, step in on_stream.items()} == {
        name: step.report() for name, step in on_list.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == [spool.path.name]
    spool.close()
    assert not list(tmp_path.iterdir())


def test_the_same_steps_can_be_called_again(noisy):
    steps = all_steps()
    for step in steps.values():
        assert step(noisy[:300]) == step(noisy[:300])


def test_steps_that_survey_begin_a_stage():
    assert [list(stage) for stage in stages(all_steps())] == [
        ["replace", "empty", "scripts"],
        ["rare", "language"],
        ["repeats"],
        ["near"],
        ["rare_again"],
    ]


def test_rows_in_a_spool_are_reached_by_position(noisy, tmp_path):
    spool = Spool(tmp_path / "rows")
    for chunk in chunks(map(dump, noisy), 7):
        spool.append(chunk.packed)
    assert len(spool) == len(noisy)
    assert spool.fetch(500) == noisy[500]
    assert all(second.first - first.first == 9 for first, second in pairwise(chunks(spool, 9)))
    spool.close()


def test_long_rows_pass_in_smaller_chunks(tmp_path):
    long = [row("あ" * 1_000_000, row_id=f"r{number}") for number in range(20)]  # 3 MB each as bytes
    packed = list(chunks(map(dump, long), CHUNK))
    assert max(len(chunk.packed) for chunk in packed) == 3
    spool = Spool(tmp_path / "rows")
    for chunk in packed:
        spool.append(chunk.packed)
    again = list(chunks(spool, CHUNK))
    assert max(len(chunk.packed) for chunk in again) == 3
    assert [example for chunk in again for example in chunk.rows()] == long
    assert [chunk.first for chunk in again] == list(range(0, 20, 3))
    spool.close()


def double(number):
    return 2 * number


@pytest.mark.parametrize("processes", [1, 2])
def test_work_comes_back_in_order_and_items_are_not_read_ahead_without_bound(processes):
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    results = in_order(double, items(), processes)
    assert next(results) == 0
    assert len(read) <= 3 * processes
    assert list(results) == [2 * number for number in range(1, 100)]


def end_the_process(number):
    os._exit(1)


def test_a_process_that_is_ended_from_outside_is_one_line_and_no_endless_wait():
    with pytest.raises(UserError, match="try processes=1"):
        list(in_order(end_the_process, range(3), 2))
