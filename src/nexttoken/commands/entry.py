"""The parts that train.py and predict.py share: composing, --help, and every mistake as one line, exit status 2.

A sweep whose jobs partly failed ends with status 1.
"""

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nexttoken.commands import own_process, sweep, sweep_end
from nexttoken.commands.broken_files import refusing_broken_files
from nexttoken.commands.grid import without_hydra
from nexttoken.commands.hydra_guard import guarded_hydra
from nexttoken.commands.terminal import fault_of_machine, show_log, stop, take_place, until_nobody_reads
from nexttoken.commands.typed import varied
from nexttoken.commands.usual_keys import USUAL_KEYS, in_full
from nexttoken.data.secrets import refuse_secret_arguments
from nexttoken.data.typed_texts import typed_override
from nexttoken.errors import UserError, nearest
from nexttoken.models.allocator import keep_freed_memory, refuse_low_limit
from nexttoken.models.peers import among_peers
from nexttoken.models.places import has_launcher
from nexttoken.models.processes import failure
from nexttoken.progress import Deadline

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from nexttoken.settings import Settings

HELP = {"-h", "--help"}
HYDRA_OPTION = re.compile(
    r"-(h|m|c|p|r|i|sc|cd)|--(help|multirun|cfg|package|run|info|shell-completion|config-dir|resolve|version|hydra-help)"
)
SHOWING = {"-c", "--cfg", "-i", "--info", "-sc", "--shell-completion"}
INTERRUPTED = "interrupted; the same command continues from the last checkpoint"
T = TypeVar("T")


def run(main: Callable[[], Any]) -> None:
    """Call a `hydra.main` function, or print the help; a configuration that cannot be composed is one line."""
    Deadline.note_program_start()
    keep_freed_memory()
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing its own message
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    take_place()
    show_log(sys.stdout)
    entry = Path(sys.argv[0]).absolute()
    sys.argv[1:] = map(in_full, sys.argv[1:])  # Hydra reads them there
    overrides = [argument for argument in sys.argv[1:] if argument not in HELP]
    options = [argument.partition("=")[0] for argument in sys.argv[1:] if argument.startswith("-")]
    if unknown := [option for option in options if not HYDRA_OPTION.fullmatch(option)]:
        stop(f"unknown option {unknown[0]!r}; settings are key=value, --help shows them", 2)
    if {"-m", "--multirun"} & {*options} and (shown := [one for one in options if one in SHOWING]):
        stop(f"{shown[0]} shows the settings of one training, and -m starts several; leave one of them out", 2)
    wants_help = len(overrides) < len(sys.argv) - 1 and not any(argument.startswith("-") for argument in overrides)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that an ended command removes its lock and parts
    own_process.end_with_sweep()
    try:
        refuse_secret_arguments(overrides)
        with until_nobody_reads():
            if wants_help:  # with a further option, such as --resolve, the help is Hydra's
                print(help_text(entry, str(sys.modules[main.__module__].__doc__), overrides))
            else:
                refuse_low_limit()
                with guarded_hydra(overrides, entry.parent / "conf"):
                    main()
                finish_sweep()
    except UserError as error:
        stop(str(error), 2)
    except (HydraException, OmegaConfBaseException) as error:
        stop(one_line(error, entry, overrides), 2)
    except KeyboardInterrupt:  # of a sweep, between its jobs or while they run elsewhere, too
        stop(INTERRUPTED, 130)


def help_text(entry: Path, usage: str, overrides: Sequence[str]) -> str:
    """`usage`, the choices of every group of `entry`, and its configuration with `overrides`.

    Hydra's own --help composes once for every group, which takes long.
    """
    from omegaconf import OmegaConf

    config = compose_entry(entry, overrides, return_hydra_config=True)
    lines = [usage.strip(), "\nChoices, group=choice:\n"]
    for group in sorted(group for group in config.hydra.runtime.choices if not group.startswith("hydra/")):
        lines.append(f"{group}: {', '.join(sorted(path.stem for path in entry.parent.glob(f'conf/{group}/*.yaml')))}")
    lines += ["\nConfiguration, key=value for any of it:\n", OmegaConf.to_yaml(without_hydra(config))]
    return "\n".join([*lines, f"Hydra's own options: python {entry.name} --hydra-help"])


def compose(entry: str, overrides: Sequence[str]) -> "DictConfig":
    """Compose conf/<entry>.yaml of the current directory with `overrides`, as `python <entry>.py <overrides>` does.

    Raises UserError where there is no such file, and for an override that does not fit, with the nearest key.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    path = Path(f"{entry}.py").resolve()
    config_path = path.parent / "conf" / f"{entry}.yaml"
    if not config_path.is_file():
        raise UserError(f"{config_path} is not there; run the command where {entry}.py and conf/ are")
    from nexttoken.data.targets import refuse_unasked_code

    refuse_secret_arguments(overrides)
    overrides = [*map(in_full, overrides)]
    try:
        config = compose_entry(path, overrides)
        refuse_unasked_code(config, overrides)
        return config
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(one_line(error, path, overrides)) from None


def compose_settings(overrides: Sequence[str]) -> "Settings":
    """The checked settings of `python train.py <overrides>`. Raises UserError as `compose` and for a wrong value."""
    from nexttoken.build import plain
    from nexttoken.data.checked_settings import check_settings
    from nexttoken.data.targets import check_targets
    from nexttoken.settings import Settings

    config = plain(compose("train", overrides))
    settings = check_settings(Settings, config)
    check_targets(config)
    return settings


def compose_entry(entry: Path, overrides: Sequence[str] = (), return_hydra_config: bool = False) -> "DictConfig":
    """The configuration of `entry`, such as <checkout>/train.py, in a fresh state of Hydra.

    Raises UserError for a broken file, and Hydra's own errors for an override that does not fit.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    conf = entry.parent / "conf"
    with initialize_config_dir(str(conf), version_base="1.3"), refusing_broken_files(conf):
        return compose(entry.stem, [*overrides], return_hydra_config=return_hydra_config)


def run_job(work: Callable[[], T]) -> T | None:
    """Call the work of a command, or of a job of a sweep (-m), which goes on after one that fails."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode == RunMode.MULTIRUN:
        if has_launcher():
            stop("-m cannot be used under torchrun or srun; start a command for each fold", 2)
        Deadline.program_start = None  # each job has the time
        config = HydraConfig.get()
        overrides, is_launched = config.overrides.task, config.runtime.choices["hydra/launcher"] != "basic"
        return sweep.run_job(varied(overrides) or overrides, work, overrides, sweep.TOTAL, is_launched)
    with errors_on_one_line(), among_peers():
        return work()


def finish_sweep() -> None:
    """Print what a sweep found and the next commands; end with status 1 and the names of its failed jobs, if any."""
    sweep_end.print_end(sweep.JOBS)
    if line := sweep.failures(sweep.JOBS):
        stop(line, 1)


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """A context around the job that turns errors into one line and an exit, for which Hydra prints nothing."""
    try:
        yield
    except UserError as error:
        stop(str(error), 2)
    except BrokenPipeError:
        raise
    except Exception as error:
        if line := fault_of_machine(error) or failure():  # of another process, and this one because of it
            stop(line, 2)
        raise
    except KeyboardInterrupt:
        stop(INTERRUPTED, 130)


def one_line(error: Exception, entry: Path, overrides: Sequence[str] = ()) -> str:
    """Hydra's message on one line, with the nearest key or choice, or the quotes that a value needs."""
    text, cause = (" ".join(str(one).split()) for one in (error, error.__cause__))
    if wrong := re.search(r"Key '[^']+' is not in struct.*?full_key: (\S+)", f"{text} {cause}"):
        from omegaconf import OmegaConf

        conf = entry.parent / "conf"
        groups = [one for one in overrides if (conf / one.partition("=")[0]).is_dir() and not re.search("[,(]", one)]
        known = known_keys(OmegaConf.to_container(compose_entry(entry, groups)))  # without the failed overrides
        return f"unknown key {wrong[1]!r}; {nearest_key(wrong[1], known)}"
    if wrong := re.search(r"interpolation '\$\{(.+?)\}': (.+?) full_key", text):
        return f"{wrong[1]} is not accepted: {wrong[2]}; give a value of that type"
    if "INTERVAL_SWEEP" in text:
        return "interval(...) is for a search: add sweep=search, or give the values one by one, such as 0.1,0.2"
    if wrong := re.search(r"(?:Ambiguous value for argument|Sweep parameters) '(.+?)' ", text):
        what = f"{wrong[1]} has several values, and only a sweep (-m) tries them"
        return f"{what}; add -m to train.py, or quote a text with commas, or write a list as [a,b]"
    if wrong := re.search(r"Error parsing override '(.+?)' .* cannot convert float (infinity|NaN) to integer", text):
        return f"{wrong[1]}: {wrong[2]} is no whole number; give finite ones, such as int(interval(8,64))"
    if "missing EQUAL" in text:
        return f"{text.partition(' See https')[0]}; write key=value"
    if wrong := re.search(r"Could not find '(.+)/([^/]+)' Available options in '\1': (.*?)(?: Config search|$)", text):
        return f"{wrong[1]}={wrong[2]} is not one of its choices; {nearest(wrong[2], wrong[3].split())}"
    if override := getattr(error, "override", None):
        key, _, value = override.partition("=")
        return f"Error parsing override {override!r}; quote a text like this: {shlex.quote(typed_override(key, value))}"
    return text.partition(" Config search path:")[0]  # Hydra's own folders, no help to a user


def nearest_key(wrong: str, known: Sequence[str]) -> str:
    """`did you mean 'x'?` with the key that people mean by a usual name such as lr, else with the nearest key."""
    usual = USUAL_KEYS.get(wrong.rpartition(".")[2].lower().replace("-", "_"))
    if usual and usual not in known and usual.startswith("adapter.") and "adapter" in known:
        return f"did you mean {usual!r}, with adapter=lora?"
    return f"did you mean {usual!r}?" if usual in known else nearest(wrong, known)


def known_keys(node: Any, path: str = "") -> list[str]:
    """All keys below a node of the configuration, groups of keys included, as `fit.learning_rate`."""
    if not isinstance(node, dict):
        return []
    return [key for name, child in node.items() for key in (path + name, *known_keys(child, f"{path}{name}."))]
