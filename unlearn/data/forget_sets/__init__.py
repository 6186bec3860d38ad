"""Forget sets: the training samples to unlearn, one kind per file."""
