"""Training through Lightning: the original model, and whatever loss a method brings."""
