"""Which parameters may move while a model unlearns: one strategy per file, one mask object."""
