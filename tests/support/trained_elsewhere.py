"""Small trainings on the sample in a process of their own: python -m support.trained_elsewhere <base> <out> <names>."""

import sys
from pathlib import Path

from support.training import predict, train

LORA = ("adapter=lora", "adapter.r=4")
KINDS = {
    "scratch": (),
    "noisy": (*LORA, "adapter.dropout=0.1"),
    "quiet": (*LORA, "adapter.dropout=0.0"),
}


def main(base: str, out: Path, names: str) -> None:
    for name in names.split(","):
        pretrained = (f"model.name_or_path={base}",) if KINDS[name] else ()
        train(out, "fold=0", "logger=none", f"name={name}", *pretrained, *KINDS[name])
        predict(out, f"run={out / 'lmsys' / name}", f"name={name}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
