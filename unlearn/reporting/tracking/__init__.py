"""Weights & Biases and other Lightning loggers."""
