"""Helpers of the tests: servers, small models, composed configurations, and commands called as the terminal does."""
