"""Hydra: schema, constraints, composition, validation, identity and help."""
