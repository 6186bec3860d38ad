"""Data sets as tensors in memory, and batched augmentation on their device."""
