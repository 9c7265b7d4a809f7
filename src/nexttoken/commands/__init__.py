"""One module per command: `python -m nexttoken` lists every module here that has a `main`."""
