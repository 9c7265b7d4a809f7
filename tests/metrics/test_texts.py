"""Text scores equal the libraries they come from, and count Japanese by character."""

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from nexttoken.errors import UserError
from nexttoken.metrics.texts import TEXT_METRICS, Tokens, chrf, exact_match, rouge_1, rouge_2, rouge_l

OUTPUTS = ["the cat sat on the mat", "a dog", "", "two birds flew"]
REFERENCES = ["the cat lay on a mat", "a cat", "something", "two birds flew"]


def test_chrf_is_sacrebleus_sentence_score():
    expected = [CHRF().sentence_score(out, [ref]).score for out, ref in zip(OUTPUTS, REFERENCES, strict=True)]
    assert chrf(OUTPUTS, REFERENCES).tolist() == expected
    assert expected[3] == pytest.approx(100)


def test_rouge_of_plain_english_is_rouge_scores_own():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for kind, score in (("rouge1", rouge_1), ("rouge2", rouge_2), ("rougeL", rouge_l)):
        expected = [scorer.score(ref, out)[kind].fmeasure for out, ref in zip(OUTPUTS, REFERENCES, strict=True)]
        assert score(OUTPUTS, REFERENCES).tolist() == expected


def test_the_longest_common_subsequence_is_rouge_scores_on_any_texts():
    scorer, rng = RougeScorer(["rougeL"], tokenizer=Tokens()), np.random.default_rng(0)
    texts = [" ".join(rng.choice(["a", "b", "c", "d"], size=rng.integers(0, 40))) for _ in range(60)]
    for output, reference in zip(texts[::2], texts[1::2], strict=True):
        assert rouge_l([output], [reference])[0] == scorer.score(reference, output)["rougeL"].fmeasure


def test_long_texts_take_no_time():
    text = "あいうえおかきくけこ" * 2_000
    assert rouge_l([text, text], [text, text[::-1]])[0] == 1


def test_japanese_is_counted_by_character_and_other_words_whole():
    assert Tokens().tokenize("東京タワーは333mだ。Tokyo Tower") == [*"東京タワーは", "333m", "だ", "tokyo", "tower"]
    assert Tokens().tokenize("ﾀﾜｰ　ＡＢＣ 人々") == [*"タワー", "abc", *"人々"]
    assert rouge_1(["東京都"], ["京都"])[0] == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert rouge_l(["都京"], ["京都"])[0] == pytest.approx(0.5)
    assert rouge_2(["東京都"], ["京都"])[0] == pytest.approx(2 * 0.5 * 1 / 1.5)


def test_exact_match_sees_through_width_and_white_space_but_not_case():
    assert exact_match(["ＡＢ　c\n", "ab c"], ["AB c", "AB c"]).tolist() == [1.0, 0.0]


def test_every_metric_gives_one_number_per_row_and_most_for_equal_texts():
    for metric in TEXT_METRICS:
        scores = metric.function(["猫がいる", "犬"], ["猫がいる", "a"])
        assert scores.shape == (2,)
        assert scores.dtype == np.float64
        assert metric.higher_is_better
        assert scores[0] > scores[1] == 0
        assert metric.function([], []).shape == (0,)


def test_missing_references_are_refused():
    with pytest.raises(UserError, match="2 outputs, but 1 references"):
        chrf(["a", "b"], ["a"])
