"""The places that a run writes to and fetches from: output folder, cache, shared memory, and the hub."""

import shutil
import sys
from contextlib import suppress
from pathlib import Path

from nexttoken.commands.diagnosis.finding import Finding
from nexttoken.data.whole_files import scratch_folder

LEAST_DISK = 5 * 2**30  # free bytes for the checkpoints of a small model and the logs
LEAST_SHARED = 2**28  # bytes by which processes of one run exchange tensors; containers often have 64 MiB
SHARED = Path("/dev/shm")


def check_folder(topic: str, folder: Path) -> Finding:
    """A folder that runs write to: it takes files, locks them, and has space. It is not made where it is not there."""
    here = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(here).free
    text = f"{folder}: {free / 2**30:.1f} GiB free"
    if not here.is_dir():
        fix = f"move that file away, or choose another folder: {_other_folder(topic)}"
        return Finding(topic, f"{folder} is no folder: {here} is a file", fix, breaks=topic == "output")
    try:
        with scratch_folder(here / "doctor") as part:
            locks = _locks(part / "lock")
    except OSError as error:
        fix = f"make {here} writable, or choose another folder: {_other_folder(topic)}"
        return Finding(topic, f"{text}, and cannot be written ({error.strerror})", fix, breaks=topic == "output")
    if not locks:
        fix = "train a fold by one machine at a time there, or use a local disk"
        return Finding(topic, f"{text}, can be written, and its file system has no locks", fix)
    if free < LEAST_DISK:
        return Finding(topic, f"{text}, can be written", f"make room, or choose another folder: {_other_folder(topic)}")
    return Finding(topic, f"{text}, can be written, and locks work")


def _other_folder(topic: str) -> str:
    return "output_dir=..." if topic == "output" else "export NEXTTOKEN_CACHE=..."


def _locks(path: Path) -> bool:
    """True where a second opening of a locked file cannot lock it."""
    import fcntl  # POSIX only

    with path.open("w") as first, path.open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        with suppress(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
    return True


def check_shared_memory(folder: Path = SHARED) -> list[Finding]:
    """Shared memory, which several processes of one run need; nothing where the system has no such folder."""
    if not sys.platform.startswith("linux") or not folder.is_dir():
        return []
    size = shutil.disk_usage(folder).total
    text = f"{size / 2**30:.2g} GiB in {folder}"
    if size < LEAST_SHARED:
        return [Finding("shared", text, "start the container with --shm-size=1g; one process needs none")]
    return [Finding("shared", text)]


def check_hub(asks: bool) -> Finding:
    """The hub of models: offline mode, a token (never its value), and with `asks` its answer."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import get_session

    from nexttoken.models.hub import HUB_SECONDS

    token = "a token is set" if get_token() else "no token (gated models need one: export HF_TOKEN=...)"
    text = f"{constants.ENDPOINT}, {token}, cache {constants.HF_HUB_CACHE}"
    if constants.HF_HUB_OFFLINE:
        return Finding("hub", f"offline by HF_HUB_OFFLINE; cache {constants.HF_HUB_CACHE}")
    if not asks:
        return Finding("hub", f"{text}; not asked (network=true asks it)")
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
    except Exception as error:  # no network, no name service, a wrong proxy
        fix = "check network, proxy and HF_ENDPOINT; model=smollm2 and folders need no hub"
        return Finding("hub", f"{text}; it does not answer ({type(error).__name__})", fix)
    return Finding("hub", f"{text}; it answers")
