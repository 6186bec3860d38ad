"""Which training samples are to be unlearned, one way to choose them per file."""
