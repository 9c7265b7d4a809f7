"""The checks of `python -m nexttoken doctor`, each a list of findings."""
