"""Training with Lightning: pre-training and unlearning."""
