"""Texts that may help to answer: corpora, their indexes, and the retrievers that search them."""
