"""Cheap models that a language model has to beat, one file for each kind of answer."""
