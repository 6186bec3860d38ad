"""HTML pages: the report of a store of rows, and the report of one healed model."""
