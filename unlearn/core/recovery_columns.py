"""Names of the columns that a clean-only network adds to rows."""

MEMORIZED, CEILING, RECOVERED = "memorized", "ceiling", "recovered"
BASELINE = "healed_original"
