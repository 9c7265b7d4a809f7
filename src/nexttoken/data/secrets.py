"""Secrets on a command line or in a configuration, which are both saved and shown: refused before any work.

Those of the environment are refused there by their values, too, and left out of errors and logs.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from nexttoken.errors import UserError

WORDS = {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "token", "apikey"}
WORDS |= {"authorization", "bearer", "cookie", "cookies"}
KINDS_OF_KEYS = {"api", "access", "private", "secret", "auth", "license", "encryption", "account"}
COUNTED = {"batch", "max", "min", "num"}  # with "token": a number of tokens, misspelt
NO_SECRETS = ("", "null", "none", "true", "false", "~")
WITH_LOGIN = re.compile(r"https?://[^/\s@'\"]+@|\w://[^/\s:@'\"]*:[^/\s@'\"]+@")
LOGIN = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")  # of an address
FOLDERS = ("PWD", "OLDPWD")  # a shell's, and no passwords
MIN_CHARACTERS = 8  # of a secret in the environment: a shorter value may be part of any text
PARAMETER = re.compile(r"[?&]([\w.-]+)=(?=[^&#])")  # of an address
IN_ADDRESS = {"key", "sig", "signature", "auth"}  # parameters of signed addresses
PAIR = re.compile(r"([\w.-]+)['\"]?\s*:\s*([^\s,}\]]+)")  # in a value such as {api_key: x}
FIX = (
    "configurations and command lines are saved and shown; leave it out and set the environment variable that the"
    " library reads, such as WANDB_API_KEY, HF_TOKEN or MLFLOW_TRACKING_PASSWORD"
)


def refuse_secrets(config: Mapping[str, Any]) -> None:
    """Raise UserError for the first secret in a configuration, at any depth; its value is not shown."""
    _refuse(_leaves(config))


def refuse_secret_arguments(arguments: Sequence[str]) -> None:
    """Raise UserError for the first secret among `key=value` arguments, also in a value of several keys."""
    for argument in arguments:
        key, sign, value = argument.lstrip("+").partition("=")
        inner = PAIR.findall(value) if value.lstrip("'\" ").startswith(("{", "[")) else []
        _refuse([(key, value if sign else argument), *inner])


def without_secrets(text: str) -> str:
    """Return `text` with *** for every secret of the environment and every user and password in an address."""
    for secret in sorted(_of_environment(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return LOGIN.sub("***", text)


def variables_in(text: str, known: Mapping[str, str] | None = None) -> list[str]:
    """The names of the environment's variables whose secrets are in `text`; `known` has them, by secret."""
    known = _of_environment() if known is None else known
    return [name for secret, name in known.items() if secret in text]


def names_secret(key: str) -> bool:
    """True for api_key, hf_token, dbPassword and the like, but not for max_tokens or key_length."""
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", key.rpartition(".")[2]).lower())
    has_key = any(kind in KINDS_OF_KEYS and noun == "key" for kind, noun in pairwise(words))
    return has_key or (not WORDS.isdisjoint(words) and COUNTED.isdisjoint(words))


def _refuse(pairs: Sequence[tuple[str, str]] | Iterator[tuple[str, str]]) -> None:
    known = _of_environment()
    for key, value in pairs:
        if names_secret(key) and value.strip("'\"").lower() not in NO_SECRETS:
            raise UserError(f"{key}=*** is refused: {FIX}")
        if variables := variables_in(value, known):
            raise UserError(f"{key}: the value of the environment variable {variables[0]} is refused: {FIX}")
        if WITH_LOGIN.search(value):
            raise UserError(f"{key}: an address with a user or password is refused: {FIX}")
        inner = PARAMETER.findall(value) if "://" in value else []
        if secret := next(
            (one for one in inner if names_secret(one) or one.lower().rpartition("-")[2] in IN_ADDRESS), None
        ):
            raise UserError(f"{key}: an address with {secret}=*** is refused: {FIX}")


def _of_environment() -> dict[str, str]:
    """The names of the environment's variables by the secrets in them; of an address the user and the password."""
    found: dict[str, str] = {}
    for name, value in os.environ.items():
        is_secret = (names_secret(name) or name.upper().endswith("_KEY")) and name not in FOLDERS
        inner = [value] if is_secret else [one.rpartition(":")[2] for one in LOGIN.findall(value)]
        found |= {one: name for one in inner if len(one) >= MIN_CHARACTERS}
    return found


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every value as text with its dotted key."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    if isinstance(node, Mapping | list):
        for key, value in items:
            yield from _leaves(value, f"{path}.{key}".lstrip("."))
    else:
        yield path, "" if node is None else str(node)
