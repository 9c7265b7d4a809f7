"""No configuration runs code by Hydra's own settings: callbacks, logs, plugins, search paths and pickles."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from nexttoken.commands.entry import HYDRA_OPTION, compose_entry
from nexttoken.commands.hydra_guard import guarded_hydra
from nexttoken.errors import UserError

OPEN = "{_target_:builtins.open,_args_:[%s,w]}"  # a harmless call that Hydra itself lets through
CALLBACK = "# @package _global_\nhydra:\n  callbacks:\n    x: {_target_: builtins.open, _args_: [%s, w]}\n"


class Opening:
    """Opens a file for writing while it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "+hydra.callbacks.x=" + OPEN], "hydra.callbacks is refused"),
        (["train.py", "-m", "+hydra.launcher.x=" + OPEN], "hydra.launcher.x._target_ is refused"),
        (["predict.py", "--config-dir={folder}", "+experiment=foreign"], "hydra.callbacks is refused"),
        (["train.py", "--experimental-rerun={folder}/config.pickle"], "unknown option '--experimental-rerun'"),
    ],
)
def test_a_call_in_hydra_s_own_settings_is_refused_before_it_runs(repository, tmp_path, arguments, words):
    called = tmp_path / "called"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "foreign.yaml").write_text(CALLBACK % called)
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Opening(called)))
    filled = [one.replace("%s", str(called)).replace("{folder}", str(tmp_path)) for one in arguments]
    done = subprocess.run([sys.executable, *filled], capture_output=True, text=True, cwd=repository, timeout=120)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, words in line) == (2, True), line
    assert not called.exists()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["hydra/job_logging=default"], "hydra.job_logging is refused: the log is the program's own"),
        (["+hydra.job_logging.handlers={x:{class:logging.FileHandler,filename:x}}"], "hydra.job_logging is refused"),
        (["+hydra.hydra_logging.handlers={x:{class:logging.FileHandler,filename:x}}"], "hydra.hydra_logging"),
        (["hydra.sweeper._target_=nexttoken.x.Y"], "expected a plugin of Hydra"),
        (["hydra.launcher._target_=os.system"], "expected a plugin of Hydra"),
        (["+hydra.sweeper.x={y:[{_target_:os.system}]}"], "hydra.sweeper.x.y.0._target_ is refused"),
        (["+hydra.launcher._args_=[1]"], "hydra.launcher._args_ is refused"),
        (["+a={_target_:os.system}", "+hydra.launcher.x=${a}"], "hydra.launcher.x._target_ is refused"),
        (["+a={x:{_target_:os.system}}", "hydra.callbacks=${a}"], "hydra.callbacks is refused"),
        (["hydra.searchpath=[pkg://antigravity]"], "it imports the package"),
        (["hydra/sweeper=basic"], "hydra/sweeper=basic is refused"),
    ],
)
def test_each_way_to_name_a_class_there_is_one_line(repository, overrides, words):
    with pytest.raises(UserError) as error, guarded_hydra(overrides, repository / "conf"):
        compose_entry(repository / "train.py", overrides, return_hydra_config=True)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert "antigravity" not in sys.modules


def test_a_file_sets_no_variables_of_the_environment_and_a_command_line_may(repository, tmp_path):
    (tmp_path / "foreign.yaml").write_text("# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: /x.so}}}\n")
    found = [f"+{tmp_path.name}=foreign", f"hydra.searchpath=[file://{tmp_path.parent}]"]
    with (
        guarded_hydra(found, repository / "conf"),
        pytest.raises(UserError, match=r"a configuration file has hydra\.job\.env_set"),
    ):
        compose_entry(repository / "train.py", found)
    typed = ["+hydra.job.env_set.OMP_NUM_THREADS=1"]
    with guarded_hydra(typed, repository / "conf"):
        compose_entry(repository / "train.py", typed)


@pytest.mark.parametrize("option", ["--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun", "--exp"])
def test_options_that_read_pickles_or_other_main_files_are_unknown(option):
    assert not HYDRA_OPTION.fullmatch(option)


def test_a_secret_in_a_file_is_refused_before_a_sweep_saves_it(repository, tmp_path):
    (tmp_path / "own.yaml").write_text("# @package _global_\nlogger: {x: {api_key: not-a-real-key-0123}}\n")
    found = [f"+{tmp_path.name}=own", f"hydra.searchpath=[file://{tmp_path.parent}]"]
    line = r"logger\.x\.api_key=\*\*\* is refused"
    with guarded_hydra(found, repository / "conf"), pytest.raises(UserError, match=line):
        compose_entry(repository / "train.py", found)


@pytest.mark.parametrize(
    ("entry", "own", "line"),
    [
        ("train", "model: {trust_remote_code: true}", "says model.trust_remote_code=true"),
        ("predict", "trust_remote_code: true", "says trust_remote_code=true"),
    ],
)
def test_a_file_does_not_allow_a_model_s_own_code(repository, tmp_path, entry, own, line):
    (tmp_path / "own.yaml").write_text(f"# @package _global_\n{own}\n")
    found = [f"+{tmp_path.name}=own", f"hydra.searchpath=[file://{tmp_path.parent}]"]
    with guarded_hydra(found, repository / "conf"), pytest.raises(UserError, match=line):
        compose_entry(repository / f"{entry}.py", found)
