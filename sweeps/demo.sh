#!/bin/sh
# Six methods on one poisoned data set, half of the poison found; then the table and the figure.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/demo}"
python unlearn.py --multirun experiment=demo \
  method=original,retrain,finetune,gradient_ascent,npo,rem "$@"
python evaluate.py experiment=demo_report
