"""A competition's files downloaded, a validated submission handed in, by Kaggle's own client.

    python -m nexttoken kaggle download [competition=lmsys] [input_dir=input/lmsys-chatbot-arena]
    python -m nexttoken kaggle submit submissions/<name>.csv [message="..."] [competition=lmsys] [input_dir=...]

The competition's rules must be accepted on its page first; only you can do that. LMSYS is a code competition: Kaggle
scores the submission.csv that a notebook writes, and may refuse an uploaded file whatever is in it.
"""

import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nexttoken.commands.archive import refuse_filled, unpack
from nexttoken.commands.arguments import key_values
from nexttoken.data.csv_tables import read_columns
from nexttoken.errors import UserError
from nexttoken.runs.ledger import record
from nexttoken.tasks.submission import validate_submission

SLUGS = {"lmsys": "lmsys-chatbot-arena"}  # our short name -> Kaggle's
FILES = ("train.csv", "test.csv", "sample_submission.csv")
INSTALL = "Kaggle's client is not installed ({}): run pip install 'kaggle>=2.2' six, or pip install -e '.[kaggle]'"
CREDENTIALS = (
    "Kaggle accepted no credentials: create a token at https://www.kaggle.com/settings/api and save it as "
    "~/.kaggle/access_token or KAGGLE_API_TOKEN (or ~/.kaggle/kaggle.json, or KAGGLE_USERNAME with KAGGLE_KEY), "
    "then accept the rules at {}"
)
RULES = "https://www.kaggle.com/competitions/{}/rules"
CODE_COMPETITION = "in a code competition such as LMSYS submit the notebook that writes submission.csv instead"


def download(competition: str = "lmsys", input_dir: str = "") -> str:
    """Fetch and unpack a competition's files into `input_dir` (default: `input/<Kaggle's name>`); say what is there."""
    slug = _slug(competition)
    folder = Path(input_dir or f"input/{slug}")
    refuse_filled(folder)
    api = client(slug)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".kaggle-", dir=folder.parent) as temporary:
        with refusals(slug):
            api.competition_download_files(slug, path=temporary, force=True, quiet=not sys.stderr.isatty())
        archives = [path for path in Path(temporary).rglob("*") if path.is_file()]
        if len(archives) != 1:
            raise UserError(f"Kaggle sent {len(archives)} files for {slug}, expected one archive; try again")
        unpack(archives[0], folder, required=FILES)
    return f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}"


def submit(path: Path, message: str = "", competition: str = "lmsys", input_dir: str = "") -> str:
    """Validate a submission against the competition's files, upload it, and note it in the ledger beside it."""
    slug = _slug(competition)
    folder = Path(input_dir or f"input/{slug}")
    test_ids = read_columns(folder / "test.csv", ["id"])["id"]
    columns = list(read_columns(folder / "sample_submission.csv", ["id"]))
    validate_submission(path, test_ids, columns)
    api = client(slug)
    try:
        with refusals(slug):
            answer = api.competition_submit(str(path), message or path.stem, slug, quiet=not sys.stderr.isatty())
    except UserError as error:
        raise UserError(f"{path} was not submitted: {error}; {CODE_COMPETITION}") from error
    if answer.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise UserError(f"{path} was not submitted: the upload failed, try again; {CODE_COMPETITION}")
    record(path)
    return f"{path}: {answer.message}; write its scores into {path.with_name('ledger.csv')} when Kaggle shows them"


def client(slug: str) -> Any:
    """Kaggle's client, signed in. It signs in while it is imported and prints its help, hence the redirection."""
    try:
        with redirect_stdout(io.StringIO()):
            import kaggle
    except ImportError as error:
        raise UserError(INSTALL.format(error)) from error
    try:
        with refusals(slug):
            kaggle.api.authenticate()
    except SystemExit as error:
        raise UserError(CREDENTIALS.format(RULES.format(slug))) from error
    return kaggle.api


@contextmanager
def refusals(slug: str) -> Iterator[None]:
    """Turn what Kaggle or the network refuses into one line with the fix, without URLs, which may carry tokens."""
    from requests import HTTPError, RequestException

    try:
        with redirect_stdout(io.StringIO()):
            yield
    except HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        fixes = {
            401: CREDENTIALS.format(RULES.format(slug)),
            403: f"Kaggle refuses (403): accept the competition's rules first at {RULES.format(slug)}",
            404: f"Kaggle knows no competition {slug!r} (404); known here: {', '.join(SLUGS)}",
        }
        raise UserError(fixes.get(status, f"Kaggle answered with status {status}; try again later")) from error
    except RequestException as error:
        raise UserError(
            f"Kaggle cannot be reached ({type(error).__name__}); check the network, then try again"
        ) from error
    except (OSError, ValueError) as error:  # a full disk; a size other than announced
        raise UserError(f"the transfer failed ({error}); try again") from error


def _slug(competition: str) -> str:
    slug = SLUGS.get(competition, competition)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug):
        raise UserError(f"{competition!r} is no competition: expected {', '.join(SLUGS)}, or the name in its address")
    return slug


def main(arguments: Sequence[str]) -> None:
    """Run one of the two commands."""
    options = [argument for argument in arguments if re.match(r"\w+=", argument)]  # a path may hold a = further on
    match [argument for argument in arguments if argument not in options]:
        case ["download"]:
            print(download(**key_values(options, {"competition": "lmsys", "input_dir": ""})))
        case ["submit", path]:
            defaults = {"message": "", "competition": "lmsys", "input_dir": ""}
            print(submit(Path(path), **key_values(options, defaults)))
        case words:
            raise UserError(
                f"expected `download` or `submit submissions/<name>.csv`, got {' '.join(words) or 'nothing'}"
            )
