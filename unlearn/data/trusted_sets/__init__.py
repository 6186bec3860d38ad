"""Trusted sets: images whose labels are known to be right."""
