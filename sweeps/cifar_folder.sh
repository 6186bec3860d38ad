#!/bin/sh
# Six methods on CIFAR-10 images in class folders, poisoned, half of the poison found.
# Hyper-parameters are those chosen on digits, carried over to every method alike.
#     sh sweeps/cifar_folder.sh dataset.root=/path/to/cifar10
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/cifar_folder}"
run() { python unlearn.py experiment=cifar_folder "$@"; }
run method=original "$@"
run method=retrain "$@"
run method=npo tuned=digits_resnet9_npo "$@"
run method=gradient_ascent tuned=digits_resnet9_gradient_ascent method.select_samples=2000 "$@"
run method=finetune tuned=digits_resnet9_finetune "$@"
run method=rem tuned=digits_resnet9_rem "$@"
python evaluate.py
