"""Write train.jsonl (five answers to each instruction), test.jsonl (a tenth as many) and truth.jsonl.

The same seed gives the same bytes.

python -m samples.marks [output_dir=input/sample-marks] [seed=0] [instructions=400]
"""

from nexttoken.commands.arguments import run
from samples import sample_command
from samples.marks.generate import MAX_INSTRUCTIONS, write_sample_marks

main = sample_command(write_sample_marks, "input/sample-marks", instructions=(10, 400, MAX_INSTRUCTIONS))

if __name__ == "__main__":
    run(main, __doc__)
