"""One target under atheris: inputs that reach new code are kept and altered further, and each finding is a file.

python -m fuzz.guided <target> <seconds> <folder>
"""

import sys
import traceback
from pathlib import Path
from zlib import crc32

import atheris

MEGABYTES = 8_192  # of memory, all libraries among them, before an input counts as too large
HANG_SECONDS = 60  # for a library that no signal of Python's ends
PACKAGE = f"{Path('src') / 'nexttoken'}/"


def main(name: str, seconds: str, folder: str) -> None:
    with atheris.instrument_imports(include=["nexttoken"]):
        from fuzz.rule import BrokenRule
        from fuzz.targets import target

        chosen = target(name)
        for sample in chosen.samples:  # what is imported at the first use is watched as well
            chosen.one_input(sample)
    place = Path(folder) / name
    corpus, findings = place / "corpus", place / "findings"
    for made in (corpus, findings):
        made.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(chosen.samples):
        (corpus / f"sample-{number}").write_bytes(sample)

    def one_input(data: bytes) -> None:
        try:
            chosen.one_input(data)
        except (BrokenRule, AssertionError) as error:
            keep(findings, data, error)

    def altered(data: bytes, max_size: int, seed: int) -> bytes:
        return (chosen.altered(data, seed) if seed % 2 else atheris.Mutate(data, len(data)))[:max_size]

    limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEGABYTES}", f"-timeout={HANG_SECONDS}"]
    options = [
        *limits,
        "-max_len=500000",
        "-len_control=0",
        f"-report_slow_units={HANG_SECONDS}",
        "-print_final_stats=1",
    ]
    options.append(f"-artifact_prefix={findings}/")  # of a crash or a hang, which ends the process
    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input, custom_mutator=altered)
    atheris.Fuzz()


def keep(findings: Path, data: bytes, error: Exception) -> None:
    """Write the input and the error, once for each place that it comes from; of several inputs the shortest."""
    cause = error.__cause__ or error
    frames = traceback.extract_tb(cause.__traceback__)
    own = [frame for frame in frames if PACKAGE in frame.filename]
    place = " ".join(f"{frame.filename}:{frame.lineno}" for frame in (*frames[-1:], *own[-1:]))
    path = findings / f"{type(cause).__name__}-{crc32(place.encode()):08x}"
    if not path.exists() or path.stat().st_size > len(data):
        path.write_bytes(data)
        lines = traceback.format_exception(cause)
        path.with_suffix(".txt").write_text(f"{error}\n{''.join(lines)}", encoding="utf-8", errors="replace")


if __name__ == "__main__":
    main(*sys.argv[1:])
