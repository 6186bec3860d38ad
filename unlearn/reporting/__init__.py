"""Tables and figures: data frame in, file or text out."""
