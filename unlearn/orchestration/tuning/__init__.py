"""Hyper-parameter tuning with Optuna, on what an unlearner may see."""
