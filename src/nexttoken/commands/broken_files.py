"""Files of conf/ that people write themselves, and values that no file holds: broken ones are one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexttoken.errors import UserError, one_line

NULL_GROUP = "Config group override must be a string"  # Hydra's ValueError for group=null


@contextmanager
def refusing_broken_files(conf: Path) -> Iterator[None]:
    """A context in which Hydra composes a configuration from the files of `conf`.

    Raises UserError for what Hydra and its YAML reader have no error of their own for: a file that is no YAML or not
    UTF-8, a choice of an impossible name, a number of thousands of digits.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException):
        raise
    except Exception as error:
        raise UserError(describe(error, conf)) from None


def describe(error: Exception, conf: Path) -> str:
    """A line with the file, where the error or a look at the files of `conf` tells it, and the fix."""
    import yaml

    match error:
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark() as mark):
            return (
                f"{mark.name}:{mark.line + 1} is no YAML: {one_line(error.problem)}; mend this line or the one before"
            )
        case yaml.reader.ReaderError():
            return f"{error.name} is no YAML: {one_line(error.reason)} (character {error.position}); remove it"
        case UnicodeDecodeError():
            named = next((path for path in sorted(conf.rglob("*.yaml")) if not _is_utf8(path)), conf)
            return f"{named} is not UTF-8; write it again in this encoding"
        case ValueError() if NULL_GROUP in str(error):
            return "a group such as task or prompt cannot be null; give one of its choices, listed by --help"
        case OSError():
            return f"{one_line(error.filename)} cannot be read ({error.strerror}); give a choice that --help lists"
        case RecursionError():
            return f"a value or a file of {conf} is nested too deeply; expected settings as conf/train.yaml has them"
    return f"the configuration cannot be composed: {one_line(error)}; mend the value, or the file of {conf} that has it"


def _is_utf8(path: Path) -> bool:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return False
    return True
