"""Write train.csv (`rows` rows), test.csv, sample_submission.csv and truth.csv; the same seed gives the same bytes.

python -m samples.preferences [output_dir=input/sample-preferences] [seed=0] [rows=2000]
"""

from nexttoken.commands.arguments import run
from samples import sample_command
from samples.preferences.write import write_sample

main = sample_command(write_sample, "input/sample-preferences", rows=(8, 2000, 100_000))

if __name__ == "__main__":
    run(main, __doc__)
