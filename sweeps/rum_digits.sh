#!/bin/sh
# RUM on the embedded data set: four methods x vanilla, shuffle, refined, then the best per part; three
# seeds. Another seed's retraining stands for the noise between two retrained models. Then the proxies,
# sets of graded entanglement, and five requests in a row.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/rum_digits}"
run() {
  python unlearn.py --multirun seed=0,1,2 corruption=none evaluation=refined \
    score=holdout_retraining score.batch_size=32 score.optimizer.lr=0.02 forget_set.size=120 "$@"
}
rum() { run forget_set=memorization method=rum "$@"; }
modes=method.mode=vanilla,shuffle,refined
rum $modes base=finetune method.base.batch_size=32 method.base.epochs=5 method.base.optimizer.lr=0.1 "$@"
rum $modes base=l1_sparse method.base.batch_size=32 method.base.epochs=5 method.base.optimizer.lr=0.1 "$@"
rum $modes base=neggrad_plus method.base.batch_size=32 method.base.epochs=5 \
  method.base.optimizer.lr=0.02 method.base.beta=0.97 method.base.stop=false "$@"
rum $modes base=salun method.base.batch_size=32 method.base.epochs=5 method.base.optimizer.lr=0.05 "$@"
rum method.mode=meta method.steps.mid.batch_size=32 method.steps.mid.epochs=5 \
  method.steps.mid.optimizer.lr=0.1 method.steps.high.batch_size=32 method.steps.high.epochs=3 \
  method.steps.high.optimizer.lr=0.05 "$@"
run forget_set=memorization method=original "$@"
run forget_set=memorization method=retrain method.seed=1000 "$@"
python evaluate.py by=[method] figure=none
python evaluate.py corruption=none scores=all scores.memorization.num_models=40 \
  scores.holdout_retraining.batch_size=32 scores.holdout_retraining.optimizer.lr=0.02
