"""Curation of training rows: steps that drop or mend rows and count what they did, on a list or on a stream."""
