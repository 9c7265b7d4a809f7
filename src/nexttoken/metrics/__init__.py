"""Scores of predictions: of class probabilities, ordered marks and texts, with calibration and intervals."""
