#!/bin/sh
# Localized unlearning of a small vision transformer on the embedded data set, a fifth of its labels
# wrong: DEL, reset + fine-tuning on other masks and on everything, beside the oracle; three seeds.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/localized_vit}"
run() {
  python unlearn.py --multirun model=vit model.width=32 model.depth=2 model.heads=2 \
    model.head_width=16 model.mlp_width=64 model.patch_size=4 trainer.threads=1 \
    optimizer@pretraining.optimizer=adam pretraining.optimizer.lr=0.003 \
    pretraining.optimizer.weight_decay=0 pretraining.epochs=60 pretraining.batch_size=64 \
    corruption=random_label corrupted=0.2 forget_set=iid,non_iid evaluation=refined seed=0,1,2 \
    save_model=false logger=none "$@"
}
adam="optimizer@method.optimizer=adam method.optimizer.lr=0.003 method.optimizer.weight_decay=0 method.batch_size=64"
run method=original,retrain "$@"
run method=finetune $adam method.epochs=15 "$@"
run method=rft $adam method.epochs=30 "$@"
run method=del $adam method.epochs=30 budget=0.3 "$@"
run method=rft $adam method.epochs=30 budget=0.3 localization=salloc,deepest,shallowest "$@"
python evaluate.py figure=localization
