"""Several models trained as one stacked program."""
