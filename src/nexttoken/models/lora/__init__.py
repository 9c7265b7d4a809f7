"""Adapters on a frozen base: how they are made, started and computed."""
