#!/bin/sh
# Budget curves of localized unlearning on the embedded data set: strategies x budgets x methods,
# beside the oracle (retrained) and the full-parameter methods; IID and non-IID, three seeds.
# A fifth of all labels is wrong, so that there is something to forget: without, a retrained model
# knows nearly all of the forget set (the last part shows that, at one budget).
# Learning rates and beta: the smallest mean gap to the oracle on seed 100, of a small grid, with a
# random and a channel mask at budget 0.3, for each kind of forget set; the full methods have the
# best of the same grid. SalUn is random_label with localization=salloc (budget 0.5 in its paper).
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/localized_digits}"
run() {
  python unlearn.py --multirun corrupted=0.2 evaluation=refined seed=0,1,2 save_model=false \
    logger=none "$@"
}
noisy() { run corruption=random_label "$@"; }
rft="method.epochs=30 method.optimizer.lr=0.05"
neggrad="method=neggrad_plus method.epochs=5 method.stop=false method.forget_batch_size=null method.batch_norm=separate"
relabel="method.epochs=5 method.batch_size=128"
budgets="budget=0.1,0.2,0.3,0.5"
strategies="localization=random,salloc,weighted_gradient,channel_weighted_gradient,random_channel_matched,deepest,shallowest"

noisy forget_set=iid,non_iid method=original,retrain "$@"
noisy forget_set=iid,non_iid method=finetune $rft method.batch_size=128 \
  method.optimizer.weight_decay=0 "$@"
noisy forget_set=iid,non_iid method=rft $rft "$@"
noisy forget_set=iid $neggrad method.beta=0.6 method.optimizer.lr=0.03 "$@"
noisy forget_set=non_iid $neggrad method.beta=0.95 method.optimizer.lr=0.01 "$@"
noisy forget_set=iid method=random_label $relabel method.optimizer.lr=0.01 "$@"
noisy forget_set=non_iid method=random_label $relabel method.optimizer.lr=0.003 "$@"

noisy forget_set=iid,non_iid method=del $rft $budgets "$@"
noisy forget_set=iid,non_iid method=rft $rft $budgets $strategies "$@"
noisy forget_set=iid $neggrad method.beta=0.8 method.optimizer.lr=0.1 $budgets $strategies "$@"
noisy forget_set=non_iid $neggrad method.beta=0.95 method.optimizer.lr=0.01 $budgets $strategies "$@"
noisy forget_set=iid method=random_label $relabel method.optimizer.lr=0.03 $budgets $strategies "$@"
noisy forget_set=non_iid method=random_label $relabel method.optimizer.lr=0.003 $budgets \
  $strategies "$@"
noisy forget_set=iid,non_iid method=rft $rft localization=critical_memorization budget=1.0 \
  localization.max_examples=20 localization.num_iterations=50 "$@"

clean() { run forget_set=iid,non_iid "$@"; }
clean method=original,retrain "$@"
clean method=del $rft budget=0.3 "$@"
clean method=rft $rft budget=0.3 \
  localization=salloc,channel_weighted_gradient,random_channel_matched,deepest,shallowest "$@"
python evaluate.py figure=localization
