"""Scripts that add tab completion to a shell."""
