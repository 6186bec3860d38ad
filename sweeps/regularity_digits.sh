#!/bin/sh
# Measured regularity of every corruption: how often a retrained model predicts the given labels of the
# images it was trained without, with the other half of them in training minus without. A table:
# reports/regularity.csv. Other data, such as 1,500 MNIST images at half size:
#     sh sweeps/regularity_digits.sh dataset=mnist dataset.num_train=1500 dataset.image_size=14 \
#       model.width=8 pretraining.epochs=30 pretraining.batch_size=64 pretraining.optimizer.lr=0.1
# Strengths of attacks: the smallest tried at which the original model learned the attack on seed 100
# (success of at least 0.9, of clean-label attacks 0.5).
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/regularity_digits}"
run() {
  python unlearn.py --multirun method=retrain discovery=0.5,1.0 evaluation=backdoor save_model=false "$@"
}
run corruption=near_duplicates corruption.group_size=1,4,16,64 "$@" || true
run corruption=poison,interclass_confusion,random_label,asymmetric,spurious_patch,subclass "$@" || true
run corruption=instance_dependent corruption.rule=part,hard "$@" || true
run corruption=blended,noise_pattern,low_frequency "$@" || true
run corruption=wanet corruption.strength=1 corruption.cover=0 "$@" || true
run corruption=sig corruption.amplitude=0.8 "$@" || true
run corruption=label_consistent corruption.mix=0.7 "$@" || true
python evaluate.py figure=none
