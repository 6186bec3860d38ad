"""Which layers hold a forget set: gradients, layer rewinding, layer retraining, masks."""
