#!/bin/sh
# Three corruptions x three discovery rates x six methods x three seeds on the embedded data set.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/grid_digits}"
python unlearn.py --multirun seed=0,1,2 \
  corruption=random_label,interclass_confusion,poison discovery=0.1,0.5,1.0 \
  method=original,retrain,finetune,gradient_ascent,npo,rem "$@"
python evaluate.py figure=heatmap
