"""Guesses of the configuration of a competition whose tables nobody has described yet."""
