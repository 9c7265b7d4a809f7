"""What both entries share: Hydra's errors and ours as one line with the nearest key, and exit status 2."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nexttoken.errors import UserError
from nexttoken.nearest import nearest
from nexttoken.ranks import failure


def run(main: Callable[[], Any]) -> None:
    """Call a `hydra.main` function; a configuration that cannot be composed is one line instead of a traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing, so that the line can be ours
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.root.handlers[0].setLevel(logging.INFO)  # whatever level a library gives its own logger
    logging.getLogger("nexttoken").setLevel(logging.INFO)  # what was found in the data; libraries speak up from WARNING
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        stop(one_line(error, Path(sys.argv[0]).absolute()), 2)


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """Around the job itself: an exit is the only way out of a job on which Hydra prints nothing of its own."""
    try:
        yield
    except UserError as error:
        stop(str(error), 2)
    except OSError as error:
        stop(f"{error.filename or 'output'}: {error.strerror or error}; nothing half-written was left behind", 2)
    except Exception:
        if line := failure():  # of another process, which broke what this one was doing
            stop(line, 2)
        raise
    except KeyboardInterrupt:
        stop("interrupted; the same command continues from the last checkpoint", 130)


def one_line(error: Exception, entry: Path) -> str:
    """Hydra's message on one line; a key that `entry`'s configuration does not know, with the nearest that it does."""
    text = " ".join(str(error).split())
    wrong = re.search(
        r"Key '([^']+)' is not in struct.*?full_key: (\S+)", f"{text} {' '.join(str(error.__cause__).split())}"
    )
    if not wrong:
        hint = "; quote a value with such characters: 'key=\"value\"'" if "Lexer" in text else ""
        return text + hint
    key = wrong[2]
    return f"unknown key {key!r}; {nearest(key, known_keys(entry))}"


def known_keys(entry: Path) -> list[str]:
    """All keys of the configuration of `entry`, such as <checkout>/train.py, without the failed overrides."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(entry.parent / "conf"), version_base="1.3"):
        config = OmegaConf.to_container(compose(entry.stem, return_hydra_config=False))

    def walk(node: Any, path: str) -> list[str]:
        if not isinstance(node, dict):
            return [path]
        return [path] * bool(path) + [
            key for name, child in node.items() for key in walk(child, f"{path}.{name}".lstrip("."))
        ]

    return walk(config, "")


def stop(line: str, status: int) -> None:
    print(line, file=sys.stderr)
    sys.exit(status)
