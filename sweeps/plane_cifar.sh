#!/bin/sh
# The corners and the middle of the task space on CIFAR-10 images in class folders.
#     sh sweeps/plane_cifar.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/plane_cifar}"
space() {
  python unlearn.py sweep=task_space_coarse dataset=cifar10_folder trainer.unlearning_precision=bf16-mixed "$@"
}
space method=original,retrain,finetune,npo,scrub,potion,rem "$@"
space pretraining=etd method=etd,rem "$@"
python evaluate.py clean_only=true  # of runs from before, too
