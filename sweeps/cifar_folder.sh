#!/bin/sh
# Six methods on CIFAR-10 images in class folders, poisoned, half of the poison found.
# Hyper-parameters are those chosen on digits, carried over to every method alike.
#     sh sweeps/cifar_folder.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/cifar_folder}"
for method in original retrain gradient_ascent npo finetune rem; do
  tuned=""
  [ -f "conf/tuned/digits_resnet9_$method.yaml" ] && tuned="tuned=digits_resnet9_$method"
  python unlearn.py experiment=cifar_folder method=$method $tuned "$@"
done
python evaluate.py
