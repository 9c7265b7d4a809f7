"""Texts that may help to answer: corpora, their indexes, the retrievers that search them, and the search itself."""
