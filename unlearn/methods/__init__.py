"""Unlearning methods, one file each; the inputs of a method are a request and a model."""
