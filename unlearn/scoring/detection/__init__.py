"""Detectors: which training samples look bad, judged without the truth."""
