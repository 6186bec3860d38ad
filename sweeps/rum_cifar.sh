#!/bin/sh
# As rum_digits.sh, on 3,000 CIFAR-10 images in class folders: RUM's table, sets of graded entanglement,
# requests in a row, the proxies of memorization. Few images and no crops, so that there is something
# to forget; learning rates as on the digits.
#     sh sweeps/rum_cifar.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/rum_cifar}"
small="dataset=cifar10_folder dataset.num_train=3000 dataset.num_test=2000
  dataset.augment.crop_padding=0 pretraining.epochs=20 trainer.unlearning_precision=bf16-mixed"
python unlearn.py sweep=rum_digits seed=0,1,2 $small forget_set.size=180 "$@"
run() {
  python unlearn.py --multirun seed=0,1,2 corruption=none evaluation=refined $small "$@"
}
run forget_set=entanglement forget_set.group=low,mid,high method=original "$@"
run forget_set=sequential forget_set.size=99 score=holdout_retraining score.batch_size=32 \
  score.optimizer.lr=0.02 method=rum base=neggrad_plus method.mode=vanilla,refined \
  method.base.batch_size=32 method.base.epochs=5 method.base.optimizer.lr=0.02 \
  method.base.beta=0.97 method.base.stop=false "$@"
python evaluate.py
python evaluate.py corruption=none $small compare_scores=all compare_scores.memorization.num_models=16 \
  compare_scores.holdout_retraining.batch_size=32 compare_scores.holdout_retraining.optimizer.lr=0.02 "$@"
