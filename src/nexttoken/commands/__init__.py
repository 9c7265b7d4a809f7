"""One file or folder a command: `python -m nexttoken` lists every module here that has a `main`."""
