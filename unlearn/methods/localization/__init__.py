"""Localization: selection of the parameters to train, one strategy per file."""
