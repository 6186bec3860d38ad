"""A table of images in place of a folder: the same healing, and its own identity."""

import shutil

import pytest
import torch

from unlearn import heal
from unlearn.core import file_digests

FEW = {
    "method": "npo",
    "options": {"epochs": 2, "optimizer.lr": 0.1, "select": "last", "gamma": 0.0},
    "device": "cpu",
}


def test_a_table_and_its_images_are_part_of_a_run_s_identity_but_not_their_place(
    words, job, photos, tmp_path
):
    top = shutil.copytree(photos / "train", tmp_path / "train")
    table = tmp_path / "labels.csv"
    names = sorted(p.relative_to(tmp_path).as_posix() for p in top.rglob("*.png"))
    lines = ["path,label", *(f"{name},{name.split('/')[1]}" for name in names)]
    table.write_text("\n".join(lines))
    own = [w for w in words if not w.startswith(("dataset=", "dataset.root="))]

    def run_id(*more):
        file_digests.hash_table.cache_clear()
        return job("dataset=csv", *own, *more).run_id

    first = run_id(f"dataset.path={table}")
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.copytree(top, moved / "train")
    shutil.copy(table, moved)
    place = f"dataset.path={moved / 'labels.csv'}"
    assert run_id(place) == first
    (moved / names[0]).write_bytes((moved / names[-1]).read_bytes())
    assert run_id(place) != first
    shutil.copy(top.parent / names[0], moved / names[0])
    assert run_id(place) == first
    (moved / "labels.csv").write_text("\n".join(lines[:-1]))
    assert run_id(place) != first
    assert run_id(f"dataset.path={table}", "dataset.classes=[ash,cedar]") != first


def test_a_table_gives_what_a_folder_gives(trained, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_HOME", str(tmp_path))
    own = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "image_size": 12}
    lines = ["path,label,split"]
    for path in sorted(photos.rglob("*.png")):
        name = path.relative_to(photos).as_posix()
        lines.append(f"{name},{path.parent.name},{name.partition('/')[0]}")
    table = tmp_path / "my labels.csv"
    table.write_text("\n".join(lines))
    more = [f"dataset.root={photos}"]
    bad = ["train/ash/00.png", "train\\ash\\01.png"]
    one, two = (
        heal(trained, retain=retain, forget=bad, overrides=extra, **FEW, **own)
        for retain, extra in ((photos, []), (table, more))
    )
    assert two.context.dataset.files is not None
    assert two.context.dataset.files[0].startswith("train/")
    assert two.context.task.forget_indices().tolist() == one.context.task.forget_indices().tolist()
    assert torch.equal(two.model[7].bias, one.model[7].bias)
    table.write_text("path,label\n")
    with pytest.raises(ValueError, match=r"my labels.csv names no image"):
        heal(trained, retain=table, forget=bad, **FEW, **own)
