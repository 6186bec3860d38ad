"""What the repairs with a trusted set do characteristically: training, pruned features, FST, NAD."""

import copy

import lightning.pytorch as L
import pytest
import torch
from torch.nn import functional as F

from unlearn.methods.components.attention_maps import (
    compute_attention_map,
    find_stages,
    record_outputs,
)
from unlearn.methods.fine_pruning import FinePruning, rank_dormant_features
from unlearn.methods.fst import FST
from unlearn.methods.ft_trusted import FtTrusted
from unlearn.methods.nad import NAD, attention_loss
from unlearn.models.inference import compute_accuracy, compute_embedding, compute_logits

pytestmark = pytest.mark.numeric


def test_fine_tuning_sees_the_trusted_images_that_are_not_held_for_validation(
    resnet, known_right, recipe, fit
):
    method = FtTrusted(**recipe(epochs=3))
    assert method.uses(0) == ("trusted",)
    fit_set, validation, apart = known_right.split_trusted()
    assert apart and not torch.isin(fit_set.index, validation.index).any()
    before = F.cross_entropy(compute_logits(resnet, fit_set), fit_set.label)
    healed = method.unlearn(resnet, known_right, fit)
    assert fit.images_seen == 3 * len(fit_set) < 3 * len(known_right.trusted)
    assert F.cross_entropy(compute_logits(healed, fit_set), fit_set.label) < before


def test_without_a_trusted_set_there_is_one_line(resnet, task, recipe):
    with pytest.raises(ValueError, match="a trusted set is needed: trusted=clean_rows"):
        FtTrusted(**recipe()).prepare(resnet, task.request())


PRUNING = {"tolerance": 0.1, "step_fraction": 0.01}


def test_dormant_features_go_first_while_the_validation_images_allow_it(
    resnet, known_right, recipe
):
    fit_set, validation, _ = known_right.split_trusted()
    order = rank_dormant_features(resnet, fit_set)
    means = compute_embedding(resnet, fit_set).mean(0)
    assert torch.equal(order, means.argsort(stable=True))
    least = 0.9 * compute_accuracy(resnet, validation)
    next_one = copy.deepcopy(resnet)
    method = FinePruning(**PRUNING, **recipe())
    pruned = method.prepare(resnet, known_right)
    gone = (pruned.fc.weight == 0).all(0).nonzero().flatten()
    count = method.notes["pruned_features"]
    assert 0 < count < len(order)
    assert torch.equal(gone, order[:count].sort().values)
    assert compute_accuracy(pruned, validation) >= least  # the last state that was good enough
    with torch.no_grad():
        next_one.fc.weight[:, order[: count + 1]] = 0
    assert count + 1 == len(order) or compute_accuracy(next_one, validation) < least


def test_pruned_features_stay_pruned_while_the_rest_is_trained(resnet, known_right, recipe, fit):
    method = FinePruning(**PRUNING, **recipe(lr=0.05, epochs=3))
    before = resnet.fc.weight.detach().clone()
    healed = method.unlearn(resnet, known_right, fit)
    gone = (healed.fc.weight == 0).all(0)
    assert int(gone.sum()) == method.notes["pruned_features"] > 0
    assert not torch.equal(healed.fc.weight[:, ~gone], before[:, ~gone])


class Watch(L.Callback):
    """Notes a value after every step, once the method's own hooks are done."""

    def __init__(self, measure):
        self.measure, self.seen = measure, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(self.measure(pl_module.model))


def test_fst_keeps_the_norm_of_the_classifier_and_turns_it_away(
    resnet, known_right, recipe, engine
):
    from unlearn.training.unlearning import LightningFit

    original = resnet.fc.weight.detach().clone()
    watch = Watch(lambda model: model.fc.weight.detach().clone())
    fit = LightningFit(engine, augment=None, seed=0, callbacks=[watch])
    method = FST(alpha=0.3, seed=3, **recipe(lr=0.02, epochs=8, batch_size=16, weight_decay=0.0))
    FST(alpha=0.0, seed=3, **recipe()).prepare(drawn := copy.deepcopy(resnet), known_right)
    assert not torch.allclose(drawn.fc.weight, original, atol=1e-2)
    healed = method.unlearn(resnet, known_right, fit)
    assert len(watch.seen) == 8 * 3
    for weight in watch.seen:
        torch.testing.assert_close(weight.norm(), original.norm(), rtol=1e-5, atol=0)
    assert not torch.equal(watch.seen[0], watch.seen[-1])

    def cosine(weight):
        return F.cosine_similarity(weight.flatten(), original.flatten(), dim=0).item()

    assert cosine(healed.fc.weight) < min(0.0, cosine(drawn.fc.weight))


def test_an_attention_map_has_norm_one_and_ignores_the_scale():
    features = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    found = compute_attention_map(features)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, compute_attention_map(7 * features), rtol=1e-5, atol=1e-6)
    by_hand = features[0].square().sum(0).flatten()
    torch.testing.assert_close(found[0], by_hand / by_hand.norm(), rtol=1e-5, atol=1e-6)
    assert compute_attention_map(torch.randn(2, 6, 8)).shape == (2, 6)  # tokens


def test_attention_of_equal_networks_costs_nothing_and_the_teacher_gets_no_gradient():
    student = torch.randn(2, 3, 4, 4, requires_grad=True)
    teacher = student.detach().clone().requires_grad_(True)
    assert attention_loss([student], [teacher], [1000.0]).item() == 0
    other = torch.randn(2, 3, 4, 4, requires_grad=True)
    attention_loss([student], [other], [1000.0]).backward()
    assert other.grad is None and student.grad.abs().sum() > 0


def make_nad(teacher_optimizer, **recipe):
    return NAD(
        betas=[5.0, 10.0, 10.0], teacher_epochs=2, teacher_optimizer=teacher_optimizer, **recipe
    )


def test_the_student_starts_from_the_original_when_the_teacher_is_done(
    resnet, known_right, recipe, fit
):
    def sgd(lr):
        return lambda p: torch.optim.SGD(p, lr=lr)

    original = copy.deepcopy(resnet.state_dict())
    method = make_nad(sgd(0.05), **(recipe(lr=0.05, epochs=1) | {"optimizer": sgd(1e-9)}))
    healed = method.unlearn(resnet, known_right, fit)
    assert method.teacher is not None
    moved = (method.teacher.fc.weight - original["fc.weight"]).abs().max()
    assert moved > 1e-4  # two epochs of the teacher
    torch.testing.assert_close(healed.fc.weight, original["fc.weight"], rtol=0, atol=1e-6)


def test_attention_draws_the_student_to_the_teacher(resnet, known_right, recipe, fit):
    batch = {"trusted": next(known_right.trusted.batches())}
    method = make_nad(lambda p: torch.optim.SGD(p, lr=0.1), **recipe(epochs=1))
    model = method.prepare(resnet, known_right).eval()
    assert len(method.stages) == 3
    assert method.loss(model, batch).item() == pytest.approx(
        F.cross_entropy(model(batch["trusted"].image), batch["trusted"].label).item()
    )
    method.teacher = copy.deepcopy(model)
    same = method.loss(model, batch)
    with torch.no_grad():
        for weight in method.teacher.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    assert method.loss(model, batch) > same + 1e-4


def test_stages_end_before_pooling(resnet, vit, known_right):
    image = next(known_right.trusted.batches()).image[:2]
    assert len(find_stages(resnet, image, 3)) == 3
    names = find_stages(resnet, image, 9)
    with record_outputs(resnet, names) as seen:
        resnet(image)
    for output in seen:
        assert output.ndim == 4 and output.shape[2:].numel() > 1
    assert find_stages(vit, image, 3)
