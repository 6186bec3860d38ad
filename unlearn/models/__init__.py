"""Networks, one family per file, and the one mechanism that adds and drops masked channels."""
