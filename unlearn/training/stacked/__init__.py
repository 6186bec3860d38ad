"""Training of several models as one program, a stack."""
