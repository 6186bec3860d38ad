"""Heal a model that learned from bad data: ``python unlearn.py --help``."""

from unlearn.cli import unlearn_main

if __name__ == "__main__":
    unlearn_main()
