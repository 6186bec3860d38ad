#!/bin/sh
# Methods on what detectors find, on the embedded data set: five methods x five detectors x three
# corruptions; then simulated discovery of half, a fifth of it false alarms, and without. Three seeds:
#     sh sweeps/detectors_digits.sh seed=0,1,2
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/detectors_digits}"
space() {
  python unlearn.py --multirun corruption=poison,interclass_confusion,random_label save_model=false "$@"
}
methods=method=original,finetune,npo,rem,retrain
for found in confidence activation_clustering spectral_signatures cleanlab loss; do
  space $methods discovery=$found "$@" || true
done
space $methods discovery=0.5 discovery_precision=null,0.8,0.5 "$@"
python evaluate.py by='[discovery/by,corruption,method]' figure=none
