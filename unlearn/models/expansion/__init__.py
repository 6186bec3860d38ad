"""Masked extra channels in any network: add them, train them, drop them."""
