#!/bin/sh
# Budget curves of localized unlearning on the embedded data set: strategies x budgets x methods,
# beside the oracle (retrained) and the full-parameter methods; IID and non-IID, three seeds.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/localized_digits}"
space() {
  python unlearn.py --multirun forget_set=iid,non_iid evaluation=refined seed=0,1,2 \
    save_model=false "$@"
}
space method=original,retrain,finetune,rft,neggrad_plus,random_label,salun "$@"
space method=del budget=0.1,0.2,0.3,0.5 "$@"
space method=rft,neggrad_plus,random_label budget=0.1,0.2,0.3,0.5 \
  localization=random,salloc,weighted_gradient,channel_weighted_gradient,random_channel_matched,deepest,shallowest \
  "$@"
space method=rft localization=critical_memorization budget=1.0 localization.max_examples=20 "$@"
python evaluate.py figure=localization
