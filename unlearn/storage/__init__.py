"""Rows: one per run and step, flat, plain values."""
