"""Write train.jsonl (`rows` dialogues), test.jsonl and truth.jsonl; the same seed gives the same bytes.

python -m samples.dialogue [output_dir=input/sample-dialogue] [seed=0] [rows=120]
"""

from nexttoken.commands.arguments import run
from samples import sample_command
from samples.dialogue.write import write_sample_dialogue

main = sample_command(write_sample_dialogue, "input/sample-dialogue", rows=(12, 120, 10_000))

if __name__ == "__main__":
    run(main, __doc__)
