"""Cells of a sweep trained and unlearned as one stacked program."""
