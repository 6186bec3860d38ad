"""Definitions of the columns of rows: shown in the report, and part of the glossary."""

import re

DEFINITIONS: dict[str, str] = {
    "healed": "fraction of all corrupted training images, found or not, that the model classifies "
    "correctly; for a backdoor, with the trigger still on them; if an attack leaves labels right, of as "
    "many other training images with the trigger; 1 is best",
    "utility": "accuracy on clean test images; for interclass confusion, without the two confused "
    "classes; 1 is best",
    "utility_full": "accuracy on the whole clean test set; 1 is best",
    "memorized": "fraction of the corrupted training images that the original model classifies as their "
    "given label, minus the same of a network trained without any of them; below 0.3 there is nothing to "
    "unlearn; if an attack leaves labels right, of the attack's success on test images",
    "ceiling": "healed accuracy of a network trained like the original, without any corrupted image",
    "recovered": "healed minus that of the original, divided by the ceiling minus that of the original: 0 "
    "is doing nothing, 1 is a network that never saw a corrupted image",
    "healed_original": "healed accuracy of the original model: of doing nothing",
    "healed_utility": "healed times utility, the main figure of merit for corrupted data; 1 is best",
    "seconds": "time of the unlearning, without the training of the original model and evaluation",
    "wall_seconds": "time of the whole run, without the training of the original model",
    "original_seconds": "time of the training of the original model",
    "score_seconds": "time of the computation of the memorization score",
    "peak_bytes": "most memory that tensors held on the GPU, or that the process held",
    "images_seen": "images that the method read: passes times images per pass",
    "measured_images": "images that the method read to measure accuracies during unlearning",
    "agreeing": "fraction of the retain set that the repair trained on: samples that the unlearned "
    "network gives their label",
    "repaired": "whether the repaired network was returned",
    "attack_success_rate": "fraction of test images with the trigger that are classified as the "
    "target class; 0 is best",
    "trigger/recovery": "fraction of test images of other classes than the target that are classified "
    "correctly with the trigger on, 2206.12654; 1 is best",
    "trigger/other": "fraction of these images that are classified as neither their own class nor the "
    "target; 0 is best",
    "trigger/shifted": "the largest fraction of these images that goes to one such class: high if the "
    "trigger now stands for that class; 0 is best",
    "trigger/shifted_to": "number of that class",
    "der": "defence effectiveness, 2304.11823: half of 1 plus the loss of attack success minus the loss "
    "of test accuracy, both against the original model; 1 is best",
    "target_class/accuracy": "accuracy on clean test images of the backdoor's target class; 1 is best",
    "healed_corrupted": "accuracy of the corrupted training images on correct labels; equal to healed "
    "unless the attack leaves labels right",
    "tow": "tug of war, 2406.01257: product of 1 minus the accuracy gaps to the retrained model on "
    "forget, retain and test set; 1 is best",
    "tow_mia": "ToW with the gap of the membership inference attack in place of the accuracy gap on "
    "the forget set, 2410.16516; 1 is best",
    "mia": "fraction of the forget set that a membership inference attack takes for data that was "
    "not used in training",
    "mia_gap": "absolute difference between the attack's result and that of the retrained model; 0 "
    "is best",
    "relative_seconds": "time of the unlearning divided by the time of retraining",
    "test/accuracy": "accuracy on clean test images; 1 is best",
    "test/accuracy_original": "the same of the original model",
    "test/accuracy_lost": "loss of test accuracy against the original model; 0 is best",
    "test/accuracy_lost_worst_class": "the largest loss of test accuracy in any class",
    "worst_class/loss": "loss of accuracy of the class that lost most; worst_class/low and high: its "
    "95 % interval, for all classes at once",
    "worst_class/lost": "names of the classes that lost accuracy that chance does not explain",
    "healed_utility_full": "healed accuracy times the accuracy on the whole test set; 1 is best",
    "clean/accuracy": "accuracy on the training images that are not corrupted",
    "train/accuracy_clean": "accuracy of the original's training on the correct labels",
    "relearn_steps": "steps until the forget set is learned again; few: it was hardly forgotten",
    "relearn_gap": "difference to the steps that the retrained model needs; 0 is best",
    "lira/auc": "area under the ROC curve of the likelihood-ratio attack on the forget set; 0.5 is "
    "chance",
    "lira/tpr": "true-positive rate of the likelihood-ratio attack at a low false-positive rate",
    "lira/judged": "number of forget samples that the likelihood-ratio attack can judge",
    "lira/member": "fraction of the forget set that the attack takes for training data",
    "ulira/auc": "the same with models that were unlearned; 0.5 is chance",
    "ulira/tpr": "true-positive rate of that attack at a low false-positive rate",
    "loss_attack/auc": "area under the ROC curve of an attack by the loss; 0.5 is chance",
    "loss_attack/tpr": "true-positive rate of the attack by the loss at a low false-positive rate",
    "discovery/size": "number of corrupted images in the forget set",
    "test/fixed": "accuracy on test data that the corruption affects: with the trigger, or of the "
    "confused classes; 1 is best",
    "forget/agreement": "fraction of the forget set that is classified as its given label says; low "
    "if the labels are wrong",
    "retain/agreement": "fraction of the retain set that is classified as its given label says",
    "forget/changed": "fraction of the forget set whose predicted class has changed",
    "retain/changed": "fraction of the retain set whose predicted class has changed",
    "test/changed": "fraction of the test set whose predicted class has changed",
    "forget/accuracy_known": "accuracy on the true labels of the list, where it gives them",
    "hidden/accuracy_given": "fraction of the corrupted images that were not found, classified as "
    "their wrong label; 0 is best",
    "hidden/accuracy_true": "accuracy on the corrupted images that were not found; 1 is best",
    "discovery/precision": "fraction of the forget set that is corrupted",
    "discovery/recall": "fraction of the corrupted images that are in the forget set",
    "forget_set/size": "number of images in the forget set",
    "localization/budget": "fraction of the parameters that may change",
}
"""One sentence per column; a source is an arXiv id."""

PATTERNS: tuple[tuple[str, str], ...] = (
    (r"_retrained$", "the value of the retrained model"),
    (r"so_far", "the value over all requests so far, in sequential unlearning"),
    (r"^mia_\w*gap$", "difference of this membership inference attack to the retrained model"),
    (r"^mia_", "fraction of the forget set that this membership inference attack takes for unseen"),
    (r"/disagreement$", "fraction of predictions that differ from those of the retrained model"),
    (r"/accuracy_gap", "difference of the accuracy to that of the retrained model; 0 is best"),
    (r"/accuracy_given$", "fraction of this part that is classified as its given label"),
    (r"/accuracy_true$", "accuracy on this part by the correct labels"),
    (r"/accuracy(_low|_mid|_high)?$", "accuracy on this part of the data"),
    (r"entanglement", "spread within forget and retain set divided by their distance"),
    (r"kl_original$", "mean KL divergence of the predictions from those of the original model"),
    (r"^kl/", "mean KL divergence of the predictions from those of the retrained model; 0 is best"),
    (r"^js/", "mean Jensen-Shannon divergence from the retrained model's predictions; 0 is best"),
    (r"^klom/", "KL divergence between the margins of unlearned and retrained models; 0 is best"),
    (r"_original$", "the value of the original model, before unlearning"),
    (r"^redirected|^masked|/masked", "the value with the added channels switched on"),
    (r"^forget_set/", "a fact about the forget set"),
    (r"^localization/", "a fact about the parameters that may change"),
    (r"^original_", "a fact about the training of the original model"),
    (r"^machine/|^versions/", "where the run was made"),
    (r"_seconds$", "a time in seconds"),
    (r"_bytes$", "an amount of memory in bytes"),
    (r"^(forget|retain|hidden|test|corrupted)/", "measured on this part of the data"),
)
"""What is said of further columns, by pattern; the first that matches."""


def define_column(name: str) -> str | None:
    """Return the definition of a column of rows; None if there is none."""
    if name in DEFINITIONS:
        return DEFINITIONS[name]
    return next((text for pattern, text in PATTERNS if re.search(pattern, name)), None)
