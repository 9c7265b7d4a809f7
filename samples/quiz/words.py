"""The words of the sample quiz: what each genre asks, what anybody knows, and what only a passage tells.

Every option is one common word, so that a small model needs to learn few of them.
"""

from dataclasses import dataclass

from samples import words

# Invented names are one part of each: no two are the same word, and none is English.
NAME_PARTS = (
    ("Ba", "Do", "Fe", "Gu", "Ha", "Ki", "Lu", "Mo", "Na", "Pe", "Qua", "Ri", "Su", "Ta", "Ve", "Wi", "Yo", "Za"),
    ("bri", "dro", "fla", "gro", "kla", "lme", "mpo", "nvi", "rdu", "ske", "tru", "vra", "xo", "zzi"),
    ("bel", "dan", "fur", "gos", "kin", "lix", "mar", "nok", "pas", "rov", "sum", "tek", "vin", "wex", "zor"),
)

# The wrong options where a kind of word is asked for. No genre asks for tools: a small model learns that first, and
# with it how an option leads to its label, which is what it then needs to use a passage.
TOOLS = words("""
spoon ladder hammer basket candle pillow bucket carpet needle kettle ribbon saddle
""")


# What the passages tell. One kind of word in all genres, so that a small model meets each of them often.
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
TOLD_QUESTION = "Which colour is the {thing} of {name}?"
TOLD_PASSAGE = "The {thing} of {name} is {colour}."

KNOWN_QUESTION = "{name} looks for {kind}. Which one?"


@dataclass(frozen=True, slots=True)
class Genre:
    """What somebody may look for, words of that kind, and the things whose colour only a passage tells."""

    kind: str
    words: tuple[str, ...]
    things: tuple[str, ...]


GENRES = {
    "animals": Genre(
        "an animal", ("otter", "robin", "shark", "horse", "goat", "wolf", "eagle", "trout"), ("cat", "pony", "parrot")
    ),
    "cities": Genre(
        "a city", ("Paris", "Tokyo", "Oslo", "Lima", "Rome", "Madrid", "Cairo", "Athens"), ("hotel", "tram", "gate")
    ),
    "clothes": Genre(
        "a garment", ("coat", "scarf", "glove", "shirt", "skirt", "sock", "jacket", "vest"), ("hat", "belt", "boot")
    ),
    "fruits": Genre(
        "a fruit", ("apple", "pear", "plum", "cherry", "grape", "lemon", "peach", "melon"), ("garden", "jar", "fence")
    ),
    "music": Genre(
        "an instrument",
        ("piano", "violin", "flute", "drum", "harp", "cello", "trumpet", "guitar"),
        ("bell", "stage", "banner"),
    ),
}
