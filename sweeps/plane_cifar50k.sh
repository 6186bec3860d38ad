#!/bin/sh
# Five rates of the task space on the 50,000 images of CIFAR-10 in class folders, 2 % corrupted, one seed.
#     sh sweeps/plane_cifar50k.sh dataset.root=/path/to/cifar10
# A day of two cores; start it several times at once to share the work, and again to continue.
# TO DO: the recipe below is a first guess (flips alone, 30 epochs, half of the published width). Its search
# (so that clean accuracy is at least 0.80 and every corruption is memorized to at least 0.5) has not been
# made, nor that of the methods' options. The table "what there is to unlearn" says what is memorized.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/plane_cifar50k}"
space() {
  python unlearn.py sweep=task_space discovery=0.1,0.3,0.5,0.7,1.0 dataset=cifar10_folder \
    dataset.num_train=50000 dataset.num_test=10000 dataset.augment.crop_padding=0 model.width=32 \
    corrupted=0.02 pretraining.epochs=30 trainer.unlearning_precision=bf16-mixed save_model=false "$@"
}
space method=original,retrain,finetune,npo,gradient_ascent,neggrad_plus,scrub,badt,potion,ssd,salun,rem,auto "$@" || true
space pretraining=etd method=etd,rem "$@" || true
python evaluate.py clean_only=true
