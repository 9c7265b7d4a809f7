"""Kaggle's own client, called by the command and led to a local server in Kaggle's place."""

import os
import subprocess
import sys
from pathlib import Path


def command(*words: str, cwd: Path, port: int = 9, credentials: bool = True, **variables: str):
    """Run the command with the client's "localhost" endpoint, reached through a proxy which is our local server."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    kept = {key: value for key, value in os.environ.items() if "KAGGLE" not in key and "proxy" not in key.lower()}
    redirected = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "http_proxy": f"http://127.0.0.1:{port}", "HOME": str(home)}
    login = {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": "secret"} if credentials else {}
    environment = kept | redirected | login | variables
    run = [sys.executable, "-m", "nexttoken", "kaggle", *words]
    return subprocess.run(run, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=60)


def refused(done: subprocess.CompletedProcess) -> str:
    """The one line of a refusal."""
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "secret" not in done.stderr
    return done.stderr
