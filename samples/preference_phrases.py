"""The words of the sample competition: what prompts ask, what answers state, and what answers say of themselves."""

from samples import lines, pairs, words

# What an answer says of itself, and the points it is worth; all words are about as long as each other.
REMARK_POINTS = {"Precise": 2, "Careful": 2, "Useful": 1, "Plain": 0, "Vague": -1, "Hasty": -2, "Wrong": -2}
REMARK = "{word} answer:"

# What may follow a statement; worth nothing, so that lengths vary independently of quality.
ASIDES = (
    "",
    "Ask me again.",
    "Have a good day \U0001f600",
    'They say "it depends".',
    "Steps:\n- read it twice\n- then try it",
)

SITUATIONS = lines("""
My exam is tomorrow morning.
We are a family of five.
I live in a small flat.
My boss wants a short report.
I am new to this.
Our train leaves in an hour.
My daughter asked me last night.
I write a page for a school book.
Two friends made a bet.
The shop closes soon \U0001f605
I forgot what my teacher said.
Please answer like a pirate.
Grandfather tells me to look it up.
It rains all week here.
No jokes, please.
I already tried twice and failed.
The internet gives me ten different opinions.
You are a helpful guide.
Our club plays a quiz every Friday.
Nobody at work knows.
I have five minutes and a pencil.
Settle this once and for all \U0001f64f
Let us begin with something easy.
A customer called about it.
""")

# A topic is a question, a statement, and the values that fill both: {0} is what is asked about, {1} a fact about it.
SUMS = tuple((f"{x} plus {y}", str(x + y)) for x in (7, 12, 25, 40) for y in (5, 18, 36))
TOPIC_LINES = lines("""
What is the capital of {0}?
The capital of {0} is {1}.
France/Paris, Japan/Tokyo, Norway/Oslo, Peru/Lima, Kenya/Nairobi
How long should I boil {0}?
Boil {0} for {1} minutes.
rice/15, eggs/7, pasta/9, potatoes/20, lentils/25
Which function do I call to {0} in Python?
To {0}, call {1}.
sort a list/sorted(), count items/len(), print text/print(), add numbers/sum()
Where should a tourist go first in {0}?
In {0}, go to the {1} first.
Rome/old town, Cairo/museum, Lisbon/harbour, Kyoto/gardens
When do gardeners plant {0}?
Plant {0} in {1}.
tulips/autumn, beans/May, garlic/October, roses/March
Can you suggest a name for my {0}?
Call your {0} {1}.
cat/Pixel, dog/Biscuit, boat/Aurora, band/The Commas
Who wrote the book {0}?
{0} was written by {1}.
Emma/Jane Austen, Dracula/Bram Stoker, Kokoro/Natsume Soseki, Ulysses/James Joyce
""")
TOPICS = (
    ("How much is {0}?", "{0} is {1}.", SUMS),
    *zip(TOPIC_LINES[::3], TOPIC_LINES[1::3], (pairs(line, ", ") for line in TOPIC_LINES[2::3]), strict=True),
)

# Fictitious models, from the weakest to the strongest.
MODELS = words("""
pebble-1b moth-chat tin-parrot-3b driftwood-7b lantern-mini copper-fox quiet-harbor-13b paper-crane north-star-lite
juniper-34b blue-heron-instruct granite-owl-70b
""")

# Answers without a remark that a careless reader takes for missing values.
AWKWARD_ANSWERS = ("NA", "null", "None", "")
