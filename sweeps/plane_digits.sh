#!/bin/sh
# The whole task space on the embedded data set: every method, three seeds, then tables and report.
# Start it several times at once (another terminal, another machine on the same folder): all share the
# work, and what is recorded is not run again. Progress: the same commands with status=watch.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/plane_digits}"
space() { python unlearn.py sweep=task_space seed=0,1,2 "$@"; }
space method=original,retrain,finetune,cf_k,eu_k,gradient_ascent,neggrad_plus,npo,random_label,scrub,badt,salun,ssd,assd,lfssd,potion,rem "$@" || true
space pretraining=etd method=etd,npo,scrub,badt,rem "$@" || true
python evaluate.py clean_only=true  # of runs from before, too
