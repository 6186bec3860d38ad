#!/bin/sh
# The whole task space on the 60,000 images of MNIST, 2 % of them corrupted: three seeds, all methods.
# Needs the files of MNIST below $UNLEARN_DATA, or a connection. Hours of two cores; start it several times
# at once to share the work, and again to continue. Progress: the same commands with status=watch.
# TO DO: the recipe below is a first guess. Its search (width, epochs, learning rate, so that clean accuracy
# is at least 0.985 and every corruption is memorized to at least 0.5) and that of the methods' options, on
# a seed of its own, have not been made. The table "what there is to unlearn" says what is memorized.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/plane_mnist}"
space() {
  python unlearn.py sweep=task_space dataset=mnist dataset.augment.crop_padding=0 model.width=16 \
    corrupted=0.02 seed=0,1,2 pretraining.epochs=16 pretraining.batch_size=128 \
    pretraining.optimizer.lr=0.1 pretraining.schedule.warmup_fraction=0.2 \
    pretraining.schedule.stretch=0.8 save_model=false "$@"
}
space method=original,retrain,finetune,npo,gradient_ascent,neggrad_plus,scrub,badt,potion,ssd,salun,rem,auto "$@" || true
space pretraining=etd method=etd,npo,scrub,badt,rem "$@" || true
python evaluate.py clean_only=true
