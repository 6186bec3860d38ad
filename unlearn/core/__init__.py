"""Types that every layer shares, errors, files and the environment."""
