"""Hyperparameter tuning with Optuna, without ground truth."""
