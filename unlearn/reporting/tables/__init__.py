"""Tables: data frame in, text, CSV or LaTeX out."""
