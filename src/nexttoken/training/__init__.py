"""Optimizer steps on a fold's rows, on Lightning."""
