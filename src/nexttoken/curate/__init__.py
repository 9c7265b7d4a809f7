"""The command that curates a training set and writes it with its manifest and report."""
