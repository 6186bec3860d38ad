"""Figures: data frame in, file out."""
