"""Write train.jsonl (`rows` rows), test.jsonl, truth.jsonl and corpus/*.jsonl; the same seed gives the same bytes.

python -m samples.quiz [output_dir=input/sample-quiz] [seed=0] [rows=2600]
"""

from nexttoken.commands.arguments import run
from samples import sample_command
from samples.quiz.generate import MAX_ROWS
from samples.quiz.write import write_sample_quiz

main = sample_command(write_sample_quiz, "input/sample-quiz", rows=(40, 2600, MAX_ROWS))

if __name__ == "__main__":
    run(main, __doc__)
