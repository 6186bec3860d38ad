#!/bin/sh
# RUM on the embedded data set: four methods x vanilla, shuffle, refined, the best per part by hand and
# chosen; three seeds. Another seed's retraining stands for the noise between two retrained models. Then
# sets of graded entanglement, five requests in a row, and the proxies of memorization.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/rum_digits}"
python unlearn.py sweep=rum_digits seed=0,1,2 "$@"
run() {
  python unlearn.py --multirun seed=0,1,2 corruption=none evaluation=refined "$@"
}
run forget_set=entanglement forget_set.group=low,mid,high method=original "$@"
run forget_set=entanglement forget_set.group=low,mid,high method=finetune,neggrad_plus \
  method.batch_size=32 method.epochs=5 method.optimizer.lr=0.02 "$@"
run forget_set=sequential forget_set.size=60 score=holdout_retraining score.batch_size=32 \
  score.optimizer.lr=0.02 method=rum base=neggrad_plus method.mode=vanilla,refined \
  method.base.batch_size=32 method.base.epochs=5 method.base.optimizer.lr=0.02 \
  method.base.beta=0.97 method.base.stop=false "$@"
python evaluate.py
python evaluate.py corruption=none compare_scores=all compare_scores.memorization.num_models=40 \
  compare_scores.holdout_retraining.batch_size=32 compare_scores.holdout_retraining.optimizer.lr=0.02
