#!/bin/sh
# Rivals with and without a trusted set over the corners and the middle of the task space on the embedded
# data set: defences of BackdoorBench with 5 % trusted images, repairs without any, noise-robust training.
# Defences do not use the forget set: one rate is run and copied to the others. Published defaults, not
# tuned here. Three seeds: sh sweeps/trusted_digits.sh seed=0,1,2
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/trusted_digits}"
space() {
  python unlearn.py --multirun corruption=random_label,interclass_confusion,poison save_model=false "$@" || true
}
space method=original discovery=0.5 "$@"
space method=ft_trusted,fine_pruning,anp,rnp,ft_sam,fst,nad,i_bau trusted=clean_rows discovery=0.5 "$@"
space method=retrain,npo,rem,cuts,sap,elr,co_teaching discovery=0.1,0.5,1.0 "$@"
space method=divide_mix discovery=0.1,0.5,1.0 "$@"
python evaluate.py figure=heatmap
