"""Corruptions of a training set, one per file (task space of arXiv 2505.17730 and 2402.14015)."""
