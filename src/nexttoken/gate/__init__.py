"""The gate command: held-out questions asked both ways, thresholds chosen out of fold, and the curve."""
