"""Detectors of corrupted training samples, without ground truth."""
