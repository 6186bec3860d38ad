"""Networks, one family per file, and the expansion by masked channels."""
