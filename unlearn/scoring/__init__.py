"""Scores and detectors of training samples, without ground truth."""
