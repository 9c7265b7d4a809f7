"""Secrets are refused by the name of their key, at any depth and in any spelling, and never shown."""

import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexttoken.build import plain
from nexttoken.commands.arguments import RunArguments
from nexttoken.commands.terminal import VisibleFormatter, crash, stop
from nexttoken.data.secrets import names_secret, refuse_secret_arguments, refuse_secrets, without_secrets
from nexttoken.errors import UserError
from nexttoken.settings import Settings
from support.commands import refusal
from support.composed import CONF, composed, config_of

VALUE = "not-a-real-key-0123"
NAMES = (
    "api_key apiKey API_KEY apikey token hf_token password db-password secret client_secret credentials aws_access_key"
    " privateKey passwd WANDB_API_KEY auth_token Authorization bearer_token session-cookie"
)
SECRET = st.sampled_from(NAMES.split())
PATH = st.lists(st.text("abz", min_size=1, max_size=4), max_size=3)


@given(PATH, SECRET, st.sampled_from(["", "+", "++"]))
def test_a_secret_is_refused_wherever_it_stands_and_never_shown(path: list[str], key: str, sign: str) -> None:
    whole = ".".join([*path, key])
    node: object = {key: VALUE}
    for name in reversed(path):
        node = {name: [node, 1]}
    with pytest.raises(UserError) as in_config:
        refuse_secrets({"fit": {"max_tokens": 5}, "a": node})
    arguments = [f"{sign}{whole}={VALUE}"], ["fold=0", f"{sign}a={{b: 1, {key}: {VALUE}}}"], [f"x=['{key}': '{VALUE}']"]
    errors = [str(in_config.value)]
    for given_arguments in arguments:
        with pytest.raises(UserError) as on_the_line:
            refuse_secret_arguments(given_arguments)
        errors.append(str(on_the_line.value))
    for error in errors:
        assert f"{key}=*** is refused" in error
        assert "set the environment variable" in error
        assert VALUE not in error
        assert "\n" not in error


@pytest.mark.parametrize(
    "address",
    [
        "http://me:pass@host/x",
        "https://abc123@host",
        "mysql://me:p@host:1/db",
        "postgresql+psycopg://u:p@h",
        "http://:p@h",
    ],
)
def test_an_address_with_a_login_is_refused(address: str) -> None:
    for refused in (lambda: refuse_secrets({"a": [address]}), lambda: refuse_secret_arguments([f"+a.uri={address}"])):
        with pytest.raises(UserError, match="an address with a user or password is refused") as error:
            refused()
        assert address not in str(error.value)


@pytest.mark.parametrize("key", ["token", "access_token", "api_key", "key", "X-Amz-Signature", "sig"])
def test_an_address_with_a_secret_parameter_is_refused(key: str) -> None:
    address = f"https://host/x?page=2&{key}={VALUE}"
    for refused in (lambda: refuse_secrets({"a": [address]}), lambda: refuse_secret_arguments([f"a.uri={address}"])):
        with pytest.raises(UserError, match=rf"an address with {key}=\*\*\* is refused") as error:
            refused()
        assert VALUE not in str(error.value)


@pytest.mark.parametrize(
    "argument",
    [
        *[
            "max_tokens=auto",
            "batch_tokens=4",
            "retriever.key_length=3",
            "a.token=null",
            "a.token=",
            "generation.max_new_tokens=5",
        ],
        *[
            "url=https://host:80/a@b",
            "mail=me@host",
            "url=https://host/x?page=2&max_tokens=5",
            "model=ssh://git@host/x",
        ],
        "prompt.user='Password: {{ x }}'",
    ],
)
def test_what_is_no_secret_passes(argument: str) -> None:
    refuse_secret_arguments([argument])


def test_no_setting_of_ours_and_no_shipped_configuration_counts_as_a_secret() -> None:
    assert not [name for name in Settings.model_fields if names_secret(name)]
    refuse_secrets(composed("logger=wandb", "retriever=web", "inference=gated_retrieval"))
    for path in CONF.rglob("*.yaml"):
        keys = [line.partition(":")[0] for line in path.read_text().splitlines() if ":" in line and "#" not in line]
        assert not [key for key in keys if names_secret(key.strip())], path


def test_every_command_refuses_a_secret_before_any_work(capsys, repository, monkeypatch) -> None:
    monkeypatch.chdir(repository)
    for command in ("plan", "labels", "report", "kaggle"):
        line = refusal(capsys, command, f"+logger.x.api_key={VALUE}")
        assert "api_key=*** is refused" in line
        assert VALUE not in line
    with pytest.raises(UserError, match="an address with a user"):
        RunArguments.parse([f"run=https://me:{VALUE}@host"])


@pytest.mark.parametrize("variable", ["HF_TOKEN", "KAGGLE_KEY", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD"])
def test_the_value_of_a_secret_variable_is_refused_under_any_key(monkeypatch, variable) -> None:
    monkeypatch.setenv(variable, VALUE)
    override = f"prompt.user='x ${{oc.env:{variable}}}'"
    for refused in (
        lambda: plain(config_of("train", override)),  # an interpolation is resolved before it is saved
        lambda: refuse_secret_arguments([f"prompt.user=Answer {VALUE}"]),  # as a shell fills $HF_TOKEN in
    ):
        with pytest.raises(UserError, match=f"the value of the environment variable {variable} is refused") as error:
            refused()
        assert VALUE not in str(error.value)


@pytest.mark.parametrize(("variable", "value"), [("HF_TOKEN", VALUE), ("HTTPS_PROXY", f"http://me:{VALUE}@proxy:80")])
def test_errors_logs_and_tracebacks_show_no_secret_of_the_environment(monkeypatch, capsys, variable, value) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit):
        stop(f"the hub refused {value}", 2)
    try:
        raise ValueError(f"403 for {value}")
    except ValueError as error:
        crash(ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.INFO, "x", 1, "sent %s", (value,), None)
    shown = capsys.readouterr().err + VisibleFormatter("%(message)s").format(record)
    assert shown.count("***") == 3
    assert "Traceback" in shown
    assert VALUE not in shown


def test_commands_print_tracebacks_without_secrets(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    refusal(capsys, "report", "no-such=x")
    assert sys.excepthook is crash


@given(st.text("ab:/@.* ", max_size=30))
def test_text_without_a_secret_stays_as_it_is(text: str) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_TOKEN", VALUE)
        patched.setenv("SHORT_TOKEN", "ab")  # may be part of any text
        assert "://" in text or without_secrets(text) == text
        assert without_secrets(f"{text} {VALUE}").endswith(" ***")
