"""Download a competition's files, submit a checked submission, or push a kernel folder, with Kaggle's own client.

python -m nexttoken kaggle download
python -m nexttoken kaggle submit submissions/<name>.csv message="what changed"
python -m nexttoken kaggle push kernel

Arguments:
  competition=...    a task (lmsys, llm_classification, wsdm, science_exam, map, jigsaw_rules, eedi), or the name in the
                     competition's address (default: lmsys)
  input_dir=...      folder of the competition's files (default: input/<the name in its address>)
  message=...        description of the submission (default: its file name)

`push` takes the folder that `python -m nexttoken kernel` wrote: it uploads the data set, waits until Kaggle has it, and
pushes the notebook, which then runs on Kaggle's machine. A file that was changed by hand is named, and nothing is sent.

Accept the competition's rules on its page first. LMSYS is a code competition: Kaggle scores the submission.csv that a
notebook writes, and may refuse any uploaded file.
"""

import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from nexttoken.commands.archive import refuse_filled, unpack
from nexttoken.commands.arguments import Arguments
from nexttoken.commands.submission import check_submission
from nexttoken.errors import UserError
from nexttoken.runs.ledger import record

SLUGS = {  # task -> competition
    "lmsys": "lmsys-chatbot-arena",
    "llm_classification": "llm-classification-finetuning",
    "wsdm": "wsdm-cup-multilingual-chatbot-arena",
    "science_exam": "kaggle-llm-science-exam",
    "map": "map-charting-student-math-misunderstandings",
    "jigsaw_rules": "jigsaw-agile-community-rules",
    "eedi": "eedi-mining-misconceptions-in-mathematics",
}
FILES = ("train.*", "test.*", "sample_submission.*")  # CSV or Parquet
INSTALL = "Kaggle's client is not installed ({}): run pip install 'kaggle>=2.2' six, or pip install -e '.[kaggle]'"
CREDENTIALS = (
    "Kaggle accepted no credentials: create a token at https://www.kaggle.com/settings/api and save it as "
    "~/.kaggle/access_token or KAGGLE_API_TOKEN (or ~/.kaggle/kaggle.json, or KAGGLE_USERNAME with KAGGLE_KEY), "
    "then accept the rules at {}"
)
RULES = "https://www.kaggle.com/competitions/{}/rules"
CODE_COMPETITION = "in a code competition such as LMSYS submit the notebook that writes submission.csv instead"


class KaggleArguments(Arguments):
    paths: tuple[str, ...] = ()
    competition: str = "lmsys"
    input_dir: Path | None = None
    message: str | None = None


def main(arguments: Sequence[str]) -> None:
    given = KaggleArguments.parse(arguments)
    slug = SLUGS.get(given.competition, given.competition)
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slug):
        expected = f"{', '.join(SLUGS)}, or the name in its address"
        raise UserError(f"{given.competition!r} is no competition: expected {expected}")
    folder = given.input_dir or Path("input") / slug
    match given.paths:
        case ["download"]:
            if given.message is not None:
                raise UserError("message= describes a submission; leave it out with `download`")
            print(download(slug, folder))
        case ["submit", path]:
            print(submit(Path(path), given.message, slug, folder))
        case ["push", path]:
            from nexttoken.commands.kernel_folder.push import push_kernel

            for line in push_kernel(Path(path)):
                print(line, flush=True)
        case words:
            got = " ".join(words) or "nothing"
            raise UserError(f"expected `download`, `submit submissions/<name>.csv` or `push kernel`, got {got}")


def download(slug: str, folder: Path) -> str:
    """Fetch a competition's files and unpack them into `folder`; return a line that lists them."""
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


def submit(path: Path, message: str | None, slug: str, folder: Path) -> str:
    """Check a submission by its run's task and the files in `folder`, upload it, and note it in the ledger."""
    check_submission(path, folder)
    api = client(slug)
    try:
        with refusals(slug):
            answer = api.competition_submit(str(path), message or path.stem, slug, quiet=not sys.stderr.isatty())
    except UserError as error:
        raise UserError(f"{path} was not submitted: {error}; {CODE_COMPETITION}") from error
    if answer.message == api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
        raise UserError(f"{path} was not submitted: the upload failed, try again; {CODE_COMPETITION}")
    record(path)
    return f"{path}: {answer.message}; note its scores by `python -m nexttoken leaderboard add file={path}`"


def client(slug: str) -> Any:
    """Kaggle's client, signed in. Importing it signs in and prints its help, so its output is dropped."""
    try:
        with redirect_stdout(io.StringIO()):
            import kaggle
        with refusals(slug):
            kaggle.api.authenticate()
    except ImportError as error:
        raise UserError(INSTALL.format(error)) from error
    except SystemExit as error:
        raise UserError(CREDENTIALS.format(RULES.format(slug))) from error
    return kaggle.api


@contextmanager
def refusals(slug: str, own_fixes: Mapping[int, str] = MappingProxyType({})) -> Iterator[None]:
    """Turn errors of Kaggle or the network into one line with the fix, without URLs, which may carry tokens.

    `own_fixes` are those of a call by status, in the place of those about the competition.
    """
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
            **own_fixes,
        }
        raise UserError(fixes.get(status, f"Kaggle answered with status {status}; try again later")) from error
    except RequestException as error:
        kind = type(error).__name__
        raise UserError(f"Kaggle cannot be reached ({kind}); check the network, then try again") from error
    except (OSError, ValueError) as error:  # a full disk; a size other than announced
        raise UserError(f"the transfer failed ({error}); try again") from error
