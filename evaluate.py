"""Evaluate a checkpoint, or all recorded runs: ``python evaluate.py --help``."""

from unlearn.cli import evaluate_main

if __name__ == "__main__":
    evaluate_main()
