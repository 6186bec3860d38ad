"""Files that mark a cached model; nothing heavy is imported here."""

CLEAN_ONLY_MARK = "clean_only"
"""Empty file beside a model that was trained without any corrupted sample."""
