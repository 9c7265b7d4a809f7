"""The words of the sample quiz: what each genre asks, what anybody knows, and what only a passage tells.

Every option is one common word, so that a small model needs to learn few of them.
"""

from dataclasses import dataclass

# Invented names are one part of each: no two are the same word, and none is English.
NAME_PARTS = (
    ("Ba", "Do", "Fe", "Gu", "Ha", "Ki", "Lu", "Mo", "Na", "Pe", "Qua", "Ri", "Su", "Ta", "Ve", "Wi", "Yo", "Za"),
    ("bri", "dro", "fla", "gro", "kla", "lme", "mpo", "nvi", "rdu", "ske", "tru", "vra", "xo", "zzi"),
    ("bel", "dan", "fur", "gos", "kin", "lix", "mar", "nok", "pas", "rov", "sum", "tek", "vin", "wex", "zor"),
)

# What no genre asks for: never the right option, and so the first thing to be learnt.
TOOLS = (
    "spoon",
    "ladder",
    "hammer",
    "basket",
    "candle",
    "pillow",
    "bucket",
    "carpet",
    "needle",
    "kettle",
    "ribbon",
    "saddle",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """A question about an invented name, and the passage that answers it: nothing else does."""

    question: str  # {name}
    passage: str  # {name} and {value}


@dataclass(frozen=True, slots=True)
class Genre:
    """Words of one kind: any of them answers `known` (among options of other kinds), one of them each `told`."""

    values: tuple[str, ...]
    known: str  # {name}: whoever wants such a word; who that is does not matter
    told: tuple[Relation, Relation]


GENRES = {
    "animals": Genre(
        ("otter", "robin", "shark", "horse", "goat", "wolf", "eagle", "trout", "moth", "snake"),
        "{name} looks for an animal. Which one is it?",
        (
            Relation("Which animal does {name} keep?", "{name} keeps one {value} at home."),
            Relation("Which animal scared {name}?", "At night {name} was scared by one {value} outside."),
        ),
    ),
    "cities": Genre(
        ("Paris", "Tokyo", "Oslo", "Lima", "Rome", "Madrid", "Cairo", "Athens", "Vienna", "Dublin"),
        "{name} looks for a city. Which one is it?",
        (
            Relation("In which city does {name} live?", "For years {name} has lived in {value} with friends."),
            Relation("In which city was {name} born?", "Long ago {name} was born in {value} in spring."),
        ),
    ),
    "colours": Genre(
        ("red", "green", "blue", "yellow", "white", "black", "brown", "grey", "purple", "pink"),
        "{name} looks for a colour. Which one is it?",
        (
            Relation("Which colour is the door of {name}?", "The door of {name} is {value} all over."),
            Relation("Which colour is the boat of {name}?", "The boat of {name} is {value} all over."),
        ),
    ),
    "fruits": Genre(
        ("apple", "pear", "plum", "cherry", "grape", "lemon", "peach", "melon", "mango", "fig"),
        "{name} looks for a fruit. Which one is it?",
        (
            Relation("Which fruit grows in the yard of {name}?", "In the yard of {name} one {value} grows slowly."),
            Relation("Which fruit does {name} sell?", "On Mondays {name} sells a {value} or two."),
        ),
    ),
    "numbers": Genre(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
        "{name} looks for a number. Which one is it?",
        (
            Relation("How many windows has the house of {name}?", "The house of {name} has {value} windows."),
            Relation("How many sisters has {name}?", "In the family of {name} are {value} sisters."),
        ),
    ),
}
