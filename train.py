"""Pre-train the original model on the corrupted data: ``python train.py --help``."""

from unlearn.cli import train_main

if __name__ == "__main__":
    train_main()
