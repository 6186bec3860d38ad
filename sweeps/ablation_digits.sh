#!/bin/sh
# REM, its ablations and its oracle on the corners and the middle of the task space.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/ablation_digits}"
space() { python unlearn.py sweep=task_space_coarse seed=0,1,2 "$@"; }
space method=rem "$@"
space experiment=rem_no_removal,rem_no_shared_mask,rem_no_expansion,rem_ga,rem_npo_ce,rem_ideal "$@"
python evaluate.py
