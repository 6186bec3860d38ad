"""Unlearning methods, one small file each; a method sees a request and a model, nothing else."""
