"""Data sets, corruptions and forget sets."""
