"""Launchers that run a sweep's jobs in other processes: of this machine, or of a SLURM cluster."""
