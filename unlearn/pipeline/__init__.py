"""One run, from a config to a recorded row; one file per job."""
