#!/bin/sh
# Six methods on 20,000 CIFAR-10 images in class folders, poisoned, half of the poison found.
#     sh sweeps/cifar_folder.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/cifar_folder}"
python unlearn.py --multirun experiment=cifar_folder \
  method=original,retrain,finetune,gradient_ascent,npo,rem "$@"
python evaluate.py
