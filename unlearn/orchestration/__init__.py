"""Many runs: the cells of a sweep, their progress, errors, stacks and tuning."""
