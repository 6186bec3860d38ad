#!/bin/sh
# Six attacks on the embedded data set: unlearning at three discovery rates, and defences with a trusted
# set, which do not use the forget set. What heals, attack success, where images with the trigger go.
# Strengths of attacks: the smallest tried at which the original model learned the attack on seed 100
# (success of at least 0.9, of clean-label attacks 0.5): defaults, except for wanet, sig and
# label_consistent. Three seeds: sh sweeps/attacks_digits.sh seed=0,1,2
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/attacks_digits}"
space() { python unlearn.py --multirun evaluation=backdoor save_model=false "$@" || true; }
attacks() {
  space corruption=blended,noise_pattern,low_frequency "$@"
  space corruption=wanet corruption.strength=1 corruption.cover=0 "$@"
  space corruption=sig corruption.amplitude=0.8 "$@"
  space corruption=label_consistent corruption.mix=0.7 "$@"
}
attacks method=original discovery=0.5 "$@"
for rate in 0.5 0.1 1.0; do
  attacks method=npo,potion,rem,retrain discovery=$rate "$@"
done
attacks method=ft_trusted,ft_sam,i_bau,fst,fine_pruning,anp trusted=clean_rows discovery=0.5 "$@"
python evaluate.py figure=none by='[corruption,discovery,method]'
