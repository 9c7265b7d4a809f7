"""What others published, so that a run can stand beside it: LMSYS - Chatbot Arena preferences, and a quiz by genre."""

from dataclasses import dataclass
from typing import Literal, get_args

from nexttoken.report.markdown import markdown

Kind = Literal["zero-shot CV", "CV", "public LB", "private LB"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class PublishedScore:
    """A self-reported three-class log loss.

    The public and the private leaderboard are different test sets, hence `kind`. `comparable` says whether the score
    may stand beside an out-of-fold log loss on the competition's own training data; on other data none may.
    """

    who: str
    what: str
    score: float
    kind: Kind
    comparable: bool


def _score(who: str, what: str, score: float, kind: Kind) -> PublishedScore:
    return PublishedScore(who, what, score, kind, comparable=kind in ("zero-shot CV", "CV"))


PUBLISHED = (
    # Kaggle thread "Prediction Using Generation Header"
    _score("Takamichi Toda", "Llama-3-8B, zero-shot", 1.234, "zero-shot CV"),
    _score("Takamichi Toda", "Llama-3-8B, SFT", 1.037, "CV"),
    _score("James Day", "Llama-3-8B, QLoRA", 0.902, "CV"),
    _score("tascj (2nd)", "Gemma-2-9B, stage 1", 0.891, "CV"),
    _score("tascj (2nd)", "Gemma-2-9B + 8B", 0.876, "CV"),
    _score("BlackPearl (1st)", "70B teachers", 0.875, "CV"),
    _score("BlackPearl (1st)", "Gemma-2-9B, distilled", 0.8672, "CV"),
    _score("ShelterW", "Llama-3-8B, QLoRA", 0.935, "public LB"),
    _score("median", "final standing", 1.052, "private LB"),
    _score("bronze", "final standing", 1.003, "private LB"),
    _score("silver", "final standing", 0.993, "private LB"),
    _score("James Day", "Gemma-2-9B, QLoRA", 0.990, "CV"),
    _score("gold", "final standing", 0.984, "private LB"),
    _score("BlackPearl (1st)", "Gemma-2-9B, distilled", 0.96898, "private LB"),
)


def predicted_leaderboard(cv: float) -> float:
    """The public leaderboard score that James Day's line predicts for a CV log loss on the competition's data."""
    return 0.890 * cv + 0.125


QUIZ_GENRES = ("芸能", "学問", "雑学", "アニメ", "スポーツ")
QUIZ_SCORES = {  # model: per genre the share of right answers and the seconds for all of its questions
    "swallow-13b": ((0.5622, 585), (0.6869, 657), (0.6809, 481), (0.5030, 366), (0.5115, 306)),
    "swallow-7b": ((0.5584, 622), (0.6174, 714), (0.6557, 527), (0.4811, 922), (0.4872, 808)),
    "calm2-7b": ((0.5306, 528), (0.5583, 601), (0.6170, 446), (0.4568, 781), (0.4265, 676)),
    "chatntq-7b": ((0.4583, 542), (0.5879, 589), (0.6383, 433), (0.3922, 306), (0.4480, 275)),
    "stablelm-gamma-7b": ((0.4712, 820), (0.5820, 909), (0.6151, 677), (0.4007, 1202), (0.4413, 1091)),
    "karasu-7B": ((0.4174, 561), (0.6027, 611), (0.5455, 450), (0.3557, 315), (0.4076, 284)),
    "ELYZA-13b-fast-instruct": ((0.4267, 556), (0.4978, 624), (0.4990, 474), (0.3715, 335), (0.3819, 291)),
    "Xwin-LM-7b": ((0.3562, 553), (0.4343, 602), (0.4487, 443), (0.3654, 296), (0.3374, 266)),
    "ELYZA-7b-fast-instruct": ((0.3210, 641), (0.4476, 729), (0.4836, 536), (0.3179, 953), (0.3603, 834)),
    "nekomata-7b-instruction": ((0.3859, 304), (0.4357, 346), (0.4023, 259), (0.3191, 212), (0.3482, 185)),
    "LLaMA-Pro-8B-Instruct": ((0.3377, 675), (0.4225, 732), (0.4043, 541), (0.3374, 374), (0.3171, 335)),
    "youri-7b": ((0.3525, 556), (0.4284, 604), (0.4139, 446), (0.2923, 298), (0.3252, 264)),
    "Mistral-7B": ((0.2931, 814), (0.3663, 905), (0.3308, 674), (0.2728, 1208), (0.2740, 1076)),
    "nekomata-7b": ((0.2616, 348), (0.2422, 382), (0.2573, 283), (0.2473, 234), (0.2321, 206)),
}


def published_quiz_tables() -> str:
    """Tables of fourteen fine-tuned Japanese models on a quiz by genre, in their published form, best first."""
    intro = (
        "## Published scores of another quiz\n\nFine-tuned models on QMA questions, self-reported with one environment "
        "a genre (dev5 to dev9): other questions and machines. None is comparable with the runs above."
    )
    parts = [intro]
    for place, genre in enumerate(QUIZ_GENRES):
        scores = sorted(QUIZ_SCORES.items(), key=lambda item: -item[1][place][0])
        rows = [[model, f"dev{5 + place}", f"{s[place][0]:.4f}", f"{s[place][1]:.0f}"] for model, s in scores]
        parts += [
            f"### Published table for genre: {genre}",
            markdown(["Model", "Environment", "Score", "Latency"], rows),
        ]
    return "\n\n".join(parts)
