"""Write train.jsonl (`rows` rows), test.jsonl and truth.jsonl; the same seed gives the same bytes.

python -m samples.instruct [output_dir=input/sample-instruct] [seed=0] [rows=400]
"""

from nexttoken.commands.arguments import run
from samples import sample_command
from samples.instruct.generate import MAX_ROWS, write_sample_instruct

main = sample_command(write_sample_instruct, "input/sample-instruct", rows=(20, 400, MAX_ROWS))

if __name__ == "__main__":
    run(main, __doc__)
