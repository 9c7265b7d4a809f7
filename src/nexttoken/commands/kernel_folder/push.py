"""A kernel folder pushed to Kaggle by its own client: the data set, a check of what arrived, then the notebook."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nexttoken.commands.kaggle import client, refusals
from nexttoken.commands.kernel_folder.files import CODE, DATA_SET, check_kernel, read_metadata
from nexttoken.errors import UserError, first_five

WAIT_SECONDS = 3600.0  # for Kaggle to unpack and copy a data set of some gigabytes
POLL_SECONDS = 5.0
FAILED = ("failed", "deleted")
PAGE = 200  # file names of a data set that Kaggle lists at once
FORBIDDEN = "Kaggle refuses it: is {0} under your own name on Kaggle, and is your phone number verified there?"
INVALID = ("dataset", "competition", "kernel", "model")


def push_kernel(kernel: Path) -> Iterator[str]:
    """Upload the data set, or a new version of it, and push the notebook; yields a line for each.

    Raises UserError for a folder that was changed by hand, and for each refusal of Kaggle.
    """
    manifest, metadata = check_kernel(kernel), read_metadata(kernel)
    data_set, competition = metadata["dataset_sources"][0], manifest["competition"].rpartition("/")[2]
    refuse_nobody(metadata["id"])
    api = client(competition)
    fixes = {403: FORBIDDEN.format(metadata["id"]), 404: FORBIDDEN.format(metadata["id"])}
    with refusals(competition, fixes):
        version = upload(api, kernel / DATA_SET, data_set)
    yield f"data set {data_set}: version {version}, {len(manifest['files'])} files"
    with refusals(competition, fixes):
        answer = api.kernels_push(str(kernel))
    refuse_invalid(answer)
    yield f"kernel {metadata['id']}: version {answer.version_number} runs on {metadata['machine_shape'] or 'a CPU'}"
    yield f"{answer.url}: submit it there when it has run"


def refuse_nobody(identity: str) -> None:
    """Raise UserError for a kernel that was built without a user's name."""
    from nexttoken.commands.kernel import NOBODY

    if identity.startswith(f"{NOBODY}/"):
        raise UserError(f"the kernel is called {identity}; build it again with id=<your name on Kaggle>/<name>")


def upload(api: Any, folder: Path, data_set: str) -> int:
    """Make the data set or a new version of it, wait until Kaggle has unpacked it, and return the version's number.

    Raises UserError where Kaggle refuses it, does not finish, or left files out.
    """
    before = known_version(api, data_set)
    if before:
        answer = api.dataset_create_version(str(folder), "python -m nexttoken kernel", quiet=True)
    else:
        answer = api.dataset_create_new(str(folder), public=False, quiet=True)
    if getattr(answer, "error", None):
        raise UserError(f"Kaggle refuses the data set {data_set}: {answer.error}")
    version = wait(api, data_set, before)
    names = set(listed(api, data_set))
    wanted = {path.name for path in folder.iterdir()} - {"dataset-metadata.json"}
    is_unpacked = any(name.startswith(f"{Path(CODE).stem}/") for name in names)
    if missing := sorted(wanted - names - ({CODE} if is_unpacked else set())):
        raise UserError(f"Kaggle's copy of {data_set} lacks {first_five(missing)}; push again")
    return version


def known_version(api: Any, data_set: str) -> int:
    """The number of the data set's newest version; 0 where there is none of this name."""
    from requests import HTTPError

    try:
        return int(status_of(api, data_set)["current_version_number"] or 0)
    except HTTPError as error:
        if error.response is not None and error.response.status_code in (403, 404):  # 403 for one that is not there
            return 0
        raise


def status_of(api: Any, data_set: str) -> dict[str, Any]:
    return json.loads(api.dataset_status(data_set, format="json"))


def wait(api: Any, data_set: str, before: int) -> int:
    """The number of the version after `before`, once it is ready."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        number = known_version(api, data_set)
        status = status_of(api, data_set)["status"] if number else ""
        if status in FAILED:
            raise UserError(f"Kaggle could not take in {data_set} ({status}); push again")
        if number > before and status == "ready":
            return number
        time.sleep(POLL_SECONDS)
    raise UserError(
        f"{data_set} is not ready after {WAIT_SECONDS / 60:.0f} minutes; look at it on Kaggle, then push again"
    )


def listed(api: Any, data_set: str) -> Iterator[str]:
    """The names of the data set's files on Kaggle."""
    page: str | None = ""
    while page is not None:
        answer = api.dataset_list_files(data_set, page_token=page or None, page_size=PAGE)
        yield from (file.name for file in answer.files)
        page = answer.next_page_token or None


def refuse_invalid(answer: Any) -> None:
    """Raise UserError for an error of Kaggle, and for inputs that it left out of the kernel."""
    if answer.error:
        raise UserError(f"Kaggle refuses the kernel: {answer.error}")
    for kind in INVALID:
        if names := getattr(answer, f"invalid_{kind}_sources", None):
            fix = {"model": "accept its licence on its page", "competition": "accept its rules on its page"}.get(kind)
            what = f"Kaggle left out the {kind} {first_five(names)}"
            raise UserError(f"{what}; {fix or 'check its name, and that your account may read it'}, then push again")
