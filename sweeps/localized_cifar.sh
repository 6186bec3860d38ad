#!/bin/sh
# DEL beside localized and full-parameter rivals on 8,000 CIFAR-10 images in class folders, without
# augmentation as in arXiv 2412.02432; IID and non-IID (bird and dog), one budget, one seed. Nothing is
# tuned here: learning rates and weights are those of the paper's code, or stated as ours.
#     sh sweeps/localized_cifar.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/localized_cifar}"
run() {
  python unlearn.py --multirun dataset=cifar10_folder dataset.augment.crop_padding=0 \
    dataset.augment.flip_rate=0 corruption=none evaluation=refined save_model=false logger=none \
    trainer.unlearning_precision=bf16-mixed "$@"
}
both() { run forget_set=iid,non_iid "$@"; }
rft="method.epochs=10 method.optimizer.lr=0.05"
neggrad="method=neggrad_plus method.epochs=5 method.stop=false method.batch_size=128 method.optimizer.lr=0.01"
relabel="method.epochs=5 method.batch_size=128 method.optimizer.lr=0.013"
both method=original,retrain "$@"
both method=finetune method.batch_size=128 $rft "$@"
both method=rft $rft "$@"
both method=del $rft budget=0.3 "$@"
both method=rft $rft budget=0.3 localization=salloc,random_channel_matched,deepest "$@"
both method=random_label,salun $relabel "$@"
both method=random_label $relabel budget=0.3 localization=salloc,channel_weighted_gradient "$@"
for kind in "iid method.beta=0.95" "non_iid method.beta=0.99"; do
  run forget_set=$kind $neggrad "$@"
  run forget_set=$kind $neggrad budget=0.3 localization=salloc,channel_weighted_gradient "$@"
done
python evaluate.py figure=localization
