"""Hydra configs: schema, constraints, composition, validation, identity and help."""
