"""Measurements outside of the test suite: speed ratios and the search for hyper-parameters."""
