"""A number or a verdict per training sample, without the truth."""
