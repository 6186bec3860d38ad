"""Expansion of networks by masked extra channels, and their removal."""
