"""Bad input found by coverage, a process for each target: needs atheris (the extra `fuzz`).

PYTHONPATH=tests python -m fuzz seconds=60 out=output/fuzz        every target for a minute
PYTHONPATH=tests python -m fuzz seconds=600 csv pages             two of them for ten

Prints a line for each target, and ends with status 1 where one has a finding: out=<folder>/<target>/findings holds each
input and its error. The corpus beside them is where the next call goes on.
"""

import re
import subprocess
import sys
from pathlib import Path

from fuzz.targets import NAMES

OUT = Path("output/fuzz")
DONE = re.compile(r"stat::number_of_executed_units: (\d+)")


def main(arguments: list[str]) -> int:
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    names = [argument for argument in arguments if "=" not in argument] or NAMES
    seconds, out = int(given.get("seconds", 60)), Path(given.get("out", OUT))
    found = [fuzz(name, seconds, out) for name in names]
    return 1 if any(found) else 0


def fuzz(name: str, seconds: int, out: Path) -> int:
    """Run one target; return the number of its findings, with those of earlier calls."""
    log = out / name / "log.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        command = [sys.executable, "-m", "fuzz.guided", name, str(seconds), str(out)]
        status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    inputs = sum(int(number) for number in DONE.findall(log.read_text(encoding="utf-8", errors="replace")))
    findings = [path for path in sorted((log.parent / "findings").glob("*")) if path.suffix != ".txt"]
    ended = "" if status == 0 else f"; ended with status {status}: {log}"
    print(f"{name}: {inputs:,} inputs in {seconds} s, {len(findings)} findings{ended}", flush=True)
    return len(findings) + (status != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
