"""Prediction of a test that does not fit into memory: read, answered and written a shard at a time."""
