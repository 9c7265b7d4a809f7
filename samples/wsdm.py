"""Write train.parquet (`rows` rows), test.parquet, sample_submission.csv and truth.csv; equal seeds, equal rows.

python -m samples.wsdm [output_dir=input/sample-wsdm] [seed=0] [rows=1600]

The competition is generated, in the files of Kaggle's "WSDM Cup - Multilingual Chatbot Arena", with known true
probabilities. Each answer begins with a remark on itself ("Vague answer:", "Vage Antwort:"), whose points are its
quality, in three languages; nothing else decides. Models and languages are named in the training rows only, and the
test rows have numbers for ids where training rows have text, as Kaggle's do. Needs the extra `parquet`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexttoken.commands.arguments import run
from nexttoken.data.files import whole_file
from samples import pick, preference_phrases, sample_command, some, words, write_csv

POINTS = tuple(preference_phrases.REMARK_POINTS.values())
ENGLISH = tuple(preference_phrases.REMARK.format(word=word) for word in preference_phrases.REMARK_POINTS)
GERMAN = tuple(f"{w} Antwort:" for w in ("Genaue", "Saubere", "Gute", "Schlichte", "Vage", "Hastige", "Falsche"))
SPANISH = tuple(f"Respuesta {w}:" for w in ("exacta", "cuidada", "buena", "simple", "vaga", "apurada", "falsa"))


@dataclass(frozen=True, slots=True)
class Language:
    """The remarks in the order of POINTS, what prompts begin with and ask, and what answers state of two things."""

    name: str
    remarks: tuple[str, ...]
    situations: tuple[str, ...]
    questions: tuple[str, ...]
    statements: tuple[str, ...]
    things: tuple[str, ...]


LANGUAGES = (
    Language(
        "English",
        ENGLISH,
        preference_phrases.SITUATIONS,
        ("Which is better, {0} or {1}?", "Tell me about {0} and {1}.", "Can I have {0} without {1}?"),
        ("Many like {0} more.", "Take {0}, then {1}.", "It depends on {0}."),
        words("tea chess snow bread Paris music sleep rice running jazz salt maps gold honey rain poetry"),
    ),
    Language(
        "German",
        GERMAN,
        ("Ich habe wenig Zeit.", "Meine Tochter fragt mich.", "Bitte ganz kurz.", "Morgen ist Prüfung.", "Guten Tag!"),
        ("Was ist besser, {0} oder {1}?", "Erzähl mir von {0} und {1}!", "Geht {0} auch ohne {1}?"),
        ("Viele mögen {0} mehr.", "Nimm {0}, dann {1}.", "Das hängt von {0} ab."),
        words("Tee Schach Schnee Brot Berlin Musik Schlaf Reis Salz Käse Honig Regen Gold"),
    ),
    Language(
        "Spanish",
        SPANISH,
        ("Tengo poco tiempo.", "Mi hija me pregunta.", "Muy breve, por favor.", "Mañana hay examen.", "¡Hola!"),
        ("¿Qué es mejor, {0} o {1}?", "Háblame de {0} y {1}.", "¿Puede haber {0} sin {1}?"),
        ("Muchos prefieren {0}.", "Toma {0}, luego {1}.", "Depende de {0}."),
        words("té ajedrez nieve pan Madrid música arroz sal miel lluvia oro café jazz"),
    ),
)
LANGUAGE_PROBS = (0.6, 0.25, 0.15)
SIDES = ("a", "b")
CLASSES = ("model_a", "model_b")
TRAIN_PER_TEST = 10


def draw_rows(number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Rows with the columns of train.parquet, and `prob`, the probability that model a wins."""
    ids = rng.choice(2**32, size=number, replace=False)
    return [_draw_row(f"{int(row_id):08x}", rng) for row_id in ids]


def _draw_row(row_id: str, rng: np.random.Generator) -> dict[str, Any]:
    language = LANGUAGES[int(rng.choice(len(LANGUAGES), p=LANGUAGE_PROBS))]
    things, models = some(language.things, 2, rng), some(preference_phrases.MODELS, 2, rng)
    remarks = rng.integers(len(POINTS), size=2).tolist()
    prob = win_prob(*(POINTS[remark] for remark in remarks))
    answers = [f"{language.remarks[remark]} {pick(language.statements, rng).format(*things)}" for remark in remarks]
    return {
        "id": row_id,
        "prompt": f"{pick(language.situations, rng)} {pick(language.questions, rng).format(*things)}",
        **{f"response_{side}": answer for side, answer in zip(SIDES, answers, strict=True)},
        "winner": CLASSES[int(rng.random() > prob)],
        **{f"model_{side}": model for side, model in zip(SIDES, models, strict=True)},
        "language": language.name,
        "prob": prob,
    }


def win_prob(points_a: float, points_b: float) -> float:
    """Probability that the first answer wins: Bradley and Terry (1952), strength 3 ** points."""
    return float(1 / (1 + 3.0 ** (points_b - points_a)))


def write_sample_wsdm(folder: Path, seed: int, num_train: int) -> str:
    """Write all files into `folder`; return one line that says what they hold."""
    rows = draw_rows(num_train + num_train // TRAIN_PER_TEST, np.random.default_rng(seed))
    train, test = rows[:num_train], rows[num_train:]
    texts = ("prompt", "response_a", "response_b")
    columns = ("id", *texts, "winner", "model_a", "model_b", "language")
    _write_parquet(folder / "train.parquet", {name: [row[name] for row in train] for name in columns})
    test_ids = [int(row["id"], 16) for row in test]
    shown = {"id": test_ids, **{name: [row[name] for row in test] for name in texts}, "scored": [True] * len(test)}
    _write_parquet(folder / "test.parquet", shown)
    write_csv(folder / "sample_submission.csv", ("id", "winner"), [(row_id, "model_a") for row_id in test_ids])
    all_ids = [row["id"] for row in train] + test_ids
    truth = [(i, f"{r['prob']:.4f}", f"{1 - r['prob']:.4f}") for i, r in zip(all_ids, rows, strict=True)]
    write_csv(folder / "truth.csv", ("id", *CLASSES), truth)
    best = np.mean([max(row["prob"], 1 - row["prob"]) for row in rows])
    return f"{folder}: {len(train)} train and {len(test)} test rows, best possible accuracy {best:.4f}"


def _write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    with whole_file(path) as part:
        parquet.write_table(pa.table(columns), part, compression="zstd")


main = sample_command(write_sample_wsdm, "input/sample-wsdm", rows=(8, 1600, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
