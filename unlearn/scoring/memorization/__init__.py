"""Memorization scores of training samples, their proxies, and partitions by score."""
