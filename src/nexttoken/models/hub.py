"""The hub and folders that hold models: one test of the network, and every failure as one line with the fix."""

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from nexttoken.data.file_kinds import refuse_stand_ins
from nexttoken.data.files import read_json
from nexttoken.data.secrets import without_secrets
from nexttoken.errors import UserError, one_line
from nexttoken.models.gguf_files import SUFFIX as GGUF
from nexttoken.models.gguf_files import dequantised_folder
from nexttoken.models.named_weights import NAMED, find_named
from nexttoken.settings import MAX_LAYERS, ModelSettings

T = TypeVar("T")

NO_NETWORK = "the hub cannot be reached"
HUB_SECONDS = 5.0  # the longest wait for the hub's first answer
MAX_CONFIG_BYTES = 2**22  # those of real models have a few thousand
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)


def find_model(name_or_path: str) -> Path | None:
    """The folder or GGUF file of a model on this machine, None for a hub name.

    Raises UserError for a path without a model, for named weights that were not fetched, and for Git LFS pointers or
    web pages in the place of files.
    """
    path = find_named(name_or_path) if name_or_path in NAMED else Path(name_or_path).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == GGUF):
        refuse_stand_ins(path)
        return path
    if name_or_path.startswith((".", "/", "~")) or name_or_path.count("/") > 1 or path.suffix == GGUF:
        kind = "file" if path.suffix == GGUF else "folder"
        fix = "give a folder with config.json, a GGUF file or a hub name"
        raise UserError(f"the model {name_or_path!r} is not a {kind}; {fix}")
    return None


def locate(name_or_path: str) -> str:
    """The folder of a model on this machine, else its hub name. A GGUF file is dequantised into a folder, once.

    Asks the hub once: without an answer huggingface_hub would retry for minutes, even for files in its cache.
    Raises UserError as `find_model` and `dequantised_folder` do.
    """
    if path := find_model(name_or_path):
        return str(dequantised_folder(path) if path.is_file() else path)
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
        except Exception as error:  # no network, no name service, no answer, a wrong proxy
            constants.HF_HUB_OFFLINE = True
            reason = one_line(f"{type(error).__name__}: {error}")
            line = f"{constants.ENDPOINT} does not answer ({reason}): only its cache is used"
            print(without_secrets(line), file=sys.stderr)
    return name_or_path


def refuse_giant(folder: Path) -> None:
    """Raise UserError where config.json asks for so many layers or experts that building them would take for ever."""
    path = folder / "config.json"
    if path.is_file() and (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise UserError(f"{path} has {size:,} bytes, expected at most {MAX_CONFIG_BYTES:,}; is it a model's folder?")
    for key, value in _numbers(read_json(path)) if path.is_file() else ():
        if ("layer" in key or "expert" in key) and not value <= MAX_LAYERS:
            raise UserError(f"{path} says {key}={value:.0f}, expected at most {MAX_LAYERS}; restore the file")


def _numbers(node: Any) -> Iterator[tuple[str, float]]:
    """Every number of a configuration with its key, also of the configurations in it."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, int | float):
            yield key, value
        yield from _numbers(value)


def from_hub(load: Callable[[], T], settings: ModelSettings) -> T:
    """Call `load`, a from_pretrained call, and show its downloads. Raises UserError with the fix for every failure."""
    from huggingface_hub import constants
    from huggingface_hub.utils import enable_progress_bars

    if not constants.HF_HUB_DISABLE_PROGRESS_BARS:
        enable_progress_bars("huggingface_hub")  # transformers hides them together with its own bars
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # a request that transformers sends to the author
    try:
        return load()
    except UserError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not (fix := _known_fix(cause, settings)):
            cause = cause.__cause__ or cause.__context__  # transformers wraps the hub's errors in its own
        cause, fix = (error, _default_fix(error, settings)) if cause is None else (cause, fix)
    reason = one_line(getattr(cause, "server_message", None) or str(cause))
    because = "" if str(fix).startswith(NO_NETWORK) else f" ({reason})"
    raise UserError(f"model {settings.name_or_path!r} could not be loaded: {fix}{because}")


def _known_fix(cause: BaseException, settings: ModelSettings) -> str | None:
    """The fix for files that would run code, an error of the hub, or a full disk; None for another error."""
    text = str(cause)  # transformers and torch have no error types for code
    if "trust_remote_code" in text or "custom code" in text:
        setting = "model.trust_remote_code=true, with a trained run trust_remote_code=true"
        return f"it ships its own code, which is not executed; if you trust it, set {setting}"
    if "weights_only" in text or "Weights only" in text:
        return "its weights are a pickle that wants to run code, which is refused; use safetensors weights"
    if _is_local(settings):
        return None
    from huggingface_hub import constants, errors, get_token
    from huggingface_hub.utils import httpx

    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{settings.name_or_path}"
    unknown = f"check the name: there is no {page}, or it is private and HF_TOKEN must be set"
    match cause:
        case errors.GatedRepoError() if get_token():
            return f"it is gated and your token's account needs access: accept its licence at {page}, check HF_TOKEN"
        case errors.GatedRepoError():
            return f"it is gated: accept its licence at {page} and set HF_TOKEN to a token of {hub}/settings/tokens"
        case errors.RepositoryNotFoundError() | errors.HFValidationError():
            return unknown
        case errors.HfHubHTTPError() if cause.response.status_code == 401:
            return f"your token is not valid: set HF_TOKEN to one of {hub}/settings/tokens" if get_token() else unknown
        case errors.RevisionNotFoundError():
            return f"model.revision={settings.revision!r} does not exist: give a branch, tag or commit of {page}"
        case errors.FileMetadataError():
            return f"what answers at {hub} is not a hub: check HF_ENDPOINT, the proxy, and the network's login page"
        case errors.HfHubHTTPError() if cause.response.status_code == 403:
            return f"{hub} forbids it: look at {page}, and check what the token in HF_TOKEN may read"
        case errors.HfHubHTTPError() if cause.response.status_code != 404:
            return f"{hub} answers {cause.response.status_code}: run the same command again later"
        case httpx.TransportError():
            return f"the connection to {hub} broke: run the same command again, complete files are kept"
        case OSError(errno=number) if number in STORAGE_ERRORS:
            return f"{constants.HF_HUB_CACHE} does not take it: make room there, or set HF_HOME to another disk"
    return None


def _default_fix(error: Exception, settings: ModelSettings) -> str:
    """The fix where the cause is unknown: the files are incomplete, or no language model."""
    from huggingface_hub import constants

    if settings.name_or_path in NAMED:
        name = settings.name_or_path
        return f"remove {find_named(name)} and fetch it again: python -m nexttoken weights {name}"
    if _is_local(settings):
        return "give a folder that holds it complete, or a hub name"
    if constants.HF_HUB_OFFLINE and isinstance(error, OSError):
        return (
            f"{NO_NETWORK}, and {constants.HF_HUB_CACHE} does not hold all of it; give a folder that does, or"
            " download it while there is a network"
        )
    files = f"{constants.ENDPOINT}/{settings.name_or_path}/tree/{settings.revision or 'main'}"
    return f"see whether {files} holds a complete causal language model"


def _is_local(settings: ModelSettings) -> bool:
    return find_model(settings.name_or_path or "") is not None
