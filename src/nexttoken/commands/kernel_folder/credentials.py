"""Files with credentials, which no bundle for another machine may hold."""

import re
from pathlib import Path

from nexttoken.data.secrets import variables_in
from nexttoken.errors import UserError

NAMES = re.compile(
    r"kaggle\.json|(access_)?token|stored_tokens|[._]?netrc|.*\.env(\..*)?|.*\.(pem|key|p12|pfx)|id_(rsa|dsa|ecdsa|ed25519)"
    r"|(application_default_)?credentials(\.json)?|\.?(pypirc|pgpass|htpasswd)|\.git-credentials",
    re.IGNORECASE,
)
TOKENS = re.compile(
    r"\bhf_[A-Za-z0-9]{30,}|\bKGAT_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{50,}|\bAKIA[0-9A-Z]{16}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)  # of Hugging Face, Kaggle, GitHub, Amazon; private keys
MAX_BYTES = 2**20  # of a file that is read: larger ones are weights, tokenizers and tables


def refuse_credentials(path: Path) -> None:
    """Raise UserError for a file that has the name of credentials, or holds a token or a secret of the environment."""
    reason = "has the name of a file with credentials" if NAMES.fullmatch(path.name) else ""
    if not reason and path.stat().st_size <= MAX_BYTES:
        text = path.read_text(encoding="utf-8", errors="replace")
        if variables := variables_in(text):
            reason = f"holds the value of the environment variable {variables[0]}"
        elif found := TOKENS.search(text):
            reason = f"holds a token or key ({found[0][:5]}...)"
    if reason:
        raise UserError(f"{path} {reason}, and a kernel's files are uploaded; move it elsewhere, or remove the secret")
