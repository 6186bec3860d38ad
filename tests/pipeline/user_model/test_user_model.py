"""A user's own model, images and list: healed, given back as it came, or refused in one line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import unlearn
from unlearn.config.command_line import add_checkpoint_defaults, expand_shorthand
from unlearn.config.composition import compose_config, enable_composition, resolve_config
from unlearn.config.registration import config_dir
from unlearn.core import file_digests, source_hash
from unlearn.core.errors import ConfigError
from unlearn.orchestration import runner
from unlearn.orchestration.outcomes import JobCounts
from unlearn.pipeline.forget_set import load_with_forget_set
from unlearn.pipeline.run_record import describe_run
from unlearn.pipeline.unlearn_job import unlearn_job


def net(words):
    import theirs  # type: ignore[import-not-found]

    return theirs.build(3)


def test_a_model_is_healed_and_given_back_as_it_came(words, job, data, tmp_path):
    made = job(*words, "method=rem", "method.epochs=2", "method.batch_size=16")
    assert made.config["names"]["corruption"] == "none"  # a checkpoint implies it
    unlearn_job(made)
    row = json.loads((made.folder / "row-0.json").read_text())
    assert row["forget_set/size"] == 4
    assert row["discovery"] is None  # nobody knows how many others are bad
    assert "discovery unknown" in describe_run(made)
    assert row["worst_class/name"] in ("<birch>", "ash", "cedar")
    assert row["worst_class/low"] <= row["worst_class/loss"] <= row["worst_class/high"]
    assert row["model"] == "import(theirs:build)"
    for column in ("forget/agreement", "retain/kl_original", "test/accuracy", "seconds"):
        assert row[column] is not None
    assert row["forget/accuracy_known"] in (0, 1)  # of the one true label that was given
    assert "healed" not in row

    before = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    after = torch.load(made.folder / "healed.ckpt", weights_only=True)
    assert after["epoch"] == 40
    assert {k: (v.shape, v.dtype) for k, v in after["state_dict"].items()} == {
        k: (v.shape, v.dtype) for k, v in before["state_dict"].items()
    }
    own = net(words)  # the user's code, which knows nothing of this package
    own.load_state_dict({k[6:]: v for k, v in after["state_dict"].items()})
    said = own.eval()(data[0]).argmax(1)
    retain = [i for i in range(60) if not 20 <= i < 24]
    agreement = (said[retain] == data[1][retain]).float().mean().item()
    assert row["retain/agreement"] == pytest.approx(agreement)
    assert row["retain/kl_original"] > 0  # something has moved

    card = json.loads((made.folder / "card.json").read_text())
    assert card["healed_of"]["size"] == 4
    assert card["healed_of"]["discovery"] is None
    assert card["config"]["discovery"] is None
    assert card["file"] == "healed.ckpt"
    assert card["original"]["form"].startswith("state dict within 'state_dict'")
    assert card["classes"] == ["<birch>", "ash", "cedar"]
    loaded = unlearn.load(made.run_id, trust=["theirs"])
    assert loaded.card["run_id"] == made.run_id
    assert torch.equal(loaded(data[0]), own(data[0]))
    text = (made.folder / "report.html").read_text()
    assert "&lt;birch&gt;" in text
    assert "<birch>" not in text
    (made.folder / "healed.ckpt").write_bytes(b"other")
    with pytest.raises(ValueError, match="does not match the SHA-256 in its card"):
        unlearn.load(made.folder)
    with pytest.raises(ValueError, match="no healed model in"):
        unlearn.load("r000000000000")


def test_the_method_is_chosen_unless_it_is_given(words, job):
    own = [w for w in words if not w.startswith("method")]
    assert job(*own).config["method"]["default"] == "rem"
    assert job(*own, "method=npo").config["names"]["method"] == "npo"
    assert "method=auto" not in add_checkpoint_defaults("unlearn", [*own, "experiment=mine"])


def test_the_card_and_the_next_images(words, job):
    own = [w for w in words if not w.startswith("method")]
    made = job(*own, "method.force=true")  # four listed images: REM without trials
    unlearn_job(made)
    row = json.loads((made.folder / "row-0.json").read_text())
    card = json.loads((made.folder / "card.json").read_text())
    assert row["auto/method"] in ("rem", "original") and row["auto/tried"] == ""
    assert "Worst class" in card["summary"][1]
    head, *rows = (made.folder / "found_next.csv").read_text().splitlines()
    assert head == "file,given,suggested,margin"
    margins = [float(line.rpartition(",")[2]) for line in rows]
    assert margins == sorted(margins, reverse=True) and all(0 < m <= 1 for m in margins)
    assert not {line.partition(",")[0] for line in rows} & {f"ash/0{i}.png" for i in range(4)}


def test_what_files_hold_is_part_of_a_run_s_identity(words, job, bad, tmp_path):
    first = job(*words).run_id
    moved = tmp_path / "elsewhere.csv"
    moved.write_text(bad.read_text())
    same = [w if "forget_set.path" not in w else f"forget_set.path={moved}" for w in words]
    assert job(*same).run_id == first
    moved.write_text(bad.read_text() + "cedar/05.png\n")
    assert job(*same).run_id != first
    content = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    content["epoch"] = 41
    torch.save(content, tmp_path / "mine.ckpt")
    assert job(*words).run_id != first


def test_images_and_code_are_part_of_a_run_s_identity_but_not_their_place(
    words, job, data, tmp_path, monkeypatch
):
    def run_id(*more):
        file_digests.hash_folder.cache_clear()
        source_hash._hash_module.cache_clear()
        return job(*words, *more).run_id

    first = run_id()
    assert run_id("trainer.threads=1") == first
    (root,) = [w.partition("=")[2] for w in words if w.startswith("dataset.root=")]
    moved = shutil.copytree(root, tmp_path / "moved")
    place = f"dataset.root={moved}"
    assert run_id(place) == first
    image = next(moved.rglob("*.png"))
    content = image.read_bytes()
    Image.new("RGB", (8, 8)).save(image)
    assert run_id(place) != first
    image.write_bytes(content)
    assert run_id(place) == first
    code = tmp_path / "theirs.py"
    code.write_text(code.read_text() + "\n# another network\n")
    assert run_id() != first


def refused(job, capsys, *words):
    """Return the line and the exit code of a run that is refused."""
    outcomes = JobCounts([list(words)])
    made = job(*words)
    outcomes.started += 1
    runner._call_job(made, "unlearn_job", outcomes)
    assert not list(made.folder.glob("row-*.json"))
    line = capsys.readouterr().err.strip().splitlines()[-1]
    return line, outcomes.exit_code()


def test_wrong_input_costs_a_line(words, job, capsys, tmp_path, bad):
    other = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    line, code = refused(job, capsys, *words, f"checkpoint={other}")
    assert (
        code,
        "does not fit model=import (theirs:build): missing in the file: 0.weight" in line,
    ) == (
        2,
        True,
    )

    content = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    head = content["state_dict"]["model.7.weight"]
    content["state_dict"]["model.7.weight"] = torch.zeros_like(head)
    torch.save(content, other)
    line, code = refused(job, capsys, *words, f"checkpoint={other}")
    assert (code, "no better than chance with 3 classes; check dataset.mean" in line) == (2, True)

    content["state_dict"]["model.7.weight"] = head.roll(1, 0)
    content["state_dict"]["model.7.bias"] = content["state_dict"]["model.7.bias"].roll(1, 0)
    torch.save(content, other)
    line, code = refused(job, capsys, *words, f"checkpoint={other}")
    assert (code, "class_order=[cedar,<birch>,ash] fits" in line) == (2, True)

    for text, message in (
        ("file\n", "names no image"),
        ("<birch>/99.png\n", "line 1: '<birch>/99.png' is not one of the 60 training images"),
        ("77\n", "line 1: 77 is not an id in 0..59"),
        ("test/ash/01.png\n", "is a test image"),
    ):
        bad.write_text(text)
        line, code = refused(job, capsys, *words)
        assert code == 2
        assert message in line


def test_another_normalization_than_that_of_the_training_is_refused(words, job, capsys):
    """The original is not called collapsed: what fits is tried and said."""
    wrong = ["dataset.mean=[2,2,2]", "dataset.std=[.1,.1,.1]"]
    line, code = refused(job, capsys, *words, *wrong)
    assert code == 2
    assert "another input fits better" in line
    assert "dataset.mean=[0.5,0.5,0.5] dataset.std=[0.5,0.5,0.5] (-1 to 1)" in line


def test_the_agreement_with_the_labels_is_said_first(words, job, caplog):
    with caplog.at_level("INFO"):
        unlearn_job(job(*words))
    (said,) = [
        r.getMessage() for r in caplog.records if r.getMessage().startswith("original model:")
    ]
    assert "of the images outside the list and 100.0% of those on it are labelled as given" in said


def test_size_and_scale_of_a_checkpoint_are_given_or_known(words, job, tmp_path):
    bare = [w for w in words if not w.startswith(("dataset.mean", "dataset.std", "dataset.image"))]
    with pytest.raises(
        ConfigError, match=r"input that it was trained on: dataset.mean, dataset.std"
    ):
        job(*bare)
    with pytest.raises(ConfigError, match=r": dataset.image_size not given"):
        job(*bare, "dataset.mean=[.5,.5,.5]", "dataset.std=[.5,.5,.5]")
    card = {"file": "mine.ckpt", "input": {"mean": [0.25] * 3, "std": [0.5] * 3, "image_size": 12}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    made = job(*bare, "dataset.image_size=10").config["dataset"]
    assert (made["mean"], made["std"], made["image_size"]) == ([0.25] * 3, [0.5] * 3, 10)
    (tmp_path / "card.json").write_text(json.dumps(card | {"file": "other.ckpt"}))
    with pytest.raises(ConfigError, match="not given"):
        job(*bare)


def test_networks_of_timm_know_their_input(words):
    timm = pytest.importorskip("timm")
    bare = [w for w in words if not w.startswith(("dataset.mean", "dataset.std", "model"))]
    every = add_checkpoint_defaults("unlearn", [*bare, "model=timm", "model.name=mixer_b16_224"])
    with enable_composition([config_dir()]):
        config = resolve_config(compose_config("unlearn", every, [config_dir()]))
    assert tuple(config["dataset"]["mean"]) == timm.get_pretrained_cfg("mixer_b16_224").mean
    assert config["dataset"]["image_size"] == 12


def test_a_network_without_room_is_refused_before_any_training(words, job, capsys, tmp_path):
    (tmp_path / "flat.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(432, 3))\n"
    )
    own = [w for w in words if not w.startswith("checkpoint")]
    line, code = refused(
        job, capsys, *own, "corruption=none", "model.path=flat:build", "method=rem"
    )
    assert code == 2
    assert "Sequential cannot be expanded" in line
    assert "method.expand=false, or any other method" in line
    assert not list((tmp_path / "home").rglob("model.pt"))  # nothing was trained


def without_list(words):
    return [w for w in words if not w.startswith("forget_set")]


def test_a_detector_makes_the_list(words, job, tmp_path, photos):
    """No list is needed; what was found is counted, named, told, and can be given back as a list."""
    found_by = ["discovery=spectral_signatures", "forget_set.epsilon=0.1"]  # takes 9 of 60
    expanded = (expand_shorthand(word, "unlearn", [config_dir()]) for word in found_by)
    made = job(*without_list(words), *expanded)
    unlearn_job(made)
    row = json.loads((made.folder / "row-0.json").read_text())
    assert (row["discovery/by"], row["discovery/size"]) == ("spectral_signatures", 9)
    assert "discovery/precision" not in row  # nobody knows the truth
    names = (made.folder / "found.csv").read_text().splitlines()
    assert names[0] == "file"
    assert len(names) == 10
    assert all((photos / "train" / name).is_file() for name in names[1:])
    text = (made.folder / "report.html").read_text()
    assert "The detector <b>spectral_signatures</b> flagged <b>9</b> of 60 training images" in text

    given = [
        *without_list(words),
        "forget_set=file",
        f"forget_set.path={made.folder / 'found.csv'}",
    ]
    again = job(*given)
    unlearn_job(again)
    lists = [json.loads((m.folder / "forget_set.json").read_text()) for m in (made, again)]
    assert lists[0] == lists[1]
    assert "The detector" not in (again.folder / "report.html").read_text()


def test_a_detector_looks_at_the_model_that_is_given(words, job, tmp_path):
    """Two models of the same data are two searches."""
    found_by = ["detector@forget_set=loss", "forget_set.budget=0.1"]
    lists = []
    for changed in (False, True):
        if changed:
            content = torch.load(tmp_path / "mine.ckpt", weights_only=True)
            content["state_dict"]["model.0.weight"][0] += 3
            torch.save(content, tmp_path / "mine.ckpt")
        made = job(*without_list(words), *found_by)
        lists.append(load_with_forget_set(made).task.forget_indices().tolist())
    assert len(lists[0]) == len(lists[1]) == 6
    assert lists[0] != lists[1]


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_a_list_of_very_many_is_doubted(words, job, caplog, share):
    made = job(*without_list(words), "detector@forget_set=loss", f"forget_set.budget={share}")
    found = load_with_forget_set(made).task.forget_indices()
    assert len(found) == round(60 * share)
    assert (f"discovery=loss flags {len(found)} of 60" in caplog.text) == (share > 0.2)


def test_cleanlab_makes_the_list(words, job):
    """It trains models of the network's kind by its own recipe, whatever made the checkpoint."""
    made = job(
        *without_list(words), "detector@forget_set=cleanlab", "forget_set.num_folds=2", "stack=off",
        "pretraining.epochs=40", "pretraining.batch_size=10", "pretraining.optimizer.lr=0.1",
    )  # fmt: skip
    found = load_with_forget_set(made).task.forget_indices().tolist()
    assert found
    assert len(set(found) & set(range(20, 28))) >= 4  # of the eight that lie in the wrong folder


def test_what_goes_with_a_checkpoint(words, job):
    for more, message in (
        (["tune.trials=2"], "tune.trials must be 0 with a checkpoint"),
        (["pretraining=etd"], "pretraining must be standard with a checkpoint"),
        (["forget_set=discovered"], "forget_set=file forget_set.path=bad.csv"),
        (["checkpoint=/nowhere.pt"], "checkpoint must be a file"),
    ):
        own = words if "forget_set=discovered" not in more else [
            w for w in words if not w.startswith("forget_set")
        ]  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            job(*own, *more)


def test_classes_in_the_order_of_the_model(words, job, tmp_path):
    content = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    for key in ("model.7.weight", "model.7.bias"):
        content["state_dict"][key] = content["state_dict"][key].roll(1, 0)
    torch.save(content, tmp_path / "mine.ckpt")
    made = job(*words, 'class_order=[cedar,"<birch>",ash]')
    unlearn_job(made)
    row = json.loads((made.folder / "row-0.json").read_text())
    assert row["test/accuracy_original"] > 0.8
    with pytest.raises(ValueError, match="class_order must name each of <birch>, ash, cedar once"):
        unlearn_job(job(*words, "class_order=[ash,cedar]"))


def test_listed_images_that_were_split_off_for_testing_are_forgotten_all_the_same(
    words, job, photos, bad
):
    top = photos / "train"
    names = [p.relative_to(top).as_posix() for p in sorted(top.rglob("*.png"))]
    bad.write_text("\n".join(names[:10]) + "\n")  # half of a class: some are split off
    made = job(*words, f"dataset.root={top}")
    unlearn_job(made)
    row = json.loads((made.folder / "row-0.json").read_text())
    assert row["forget_set/size"] == 10
    chosen = json.loads((made.folder / "forget_set.json").read_text())[0]
    assert max(chosen) >= 48  # 60 images, a fifth of them split off; those came back at the end


def test_a_broken_image_is_named(words, job, capsys, tmp_path, photos):
    import shutil

    shutil.copytree(photos, tmp_path / "copy")
    (tmp_path / "copy" / "train" / "ash" / "05.png").write_bytes(b"no image")
    line, code = refused(job, capsys, *words, f"dataset.root={tmp_path / 'copy'}")
    assert code == 2
    assert "1 unreadable image " in line
    assert "ash/05.png" in line
    assert Path(tmp_path / "copy").exists()
