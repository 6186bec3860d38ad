"""A list of bad images as users write it, and what is said of a wrong one."""

import pytest
import torch

from unlearn.data.forget_sets.from_file import FromFile
from unlearn.data.forget_sets.sample_list import ImageIndex, parse_list, read_lines
from unlearn.data.task import Truth

FILES = ("cat/a.png", "cat/b.png", "dog/a.png", "dog/sub/c.png", "dog/7.png")
CLASSES = ("cat", "dog")


def rows(tmp_path, text, names=None):
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8-sig")
    return dict(parse_list(path, names or ImageIndex(FILES, len(FILES)), CLASSES))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cat/a.png\ndog/a.png\n", {0: None, 2: None}),
        ("file,label\ncat/a.png,dog\ndog/sub/c.png,\n", {0: 1, 3: None}),
        ("# mine\n\nindex;true\n1;dog\n4;0\n", {1: 1, 4: 0}),
        ("C:\\photos\\train\\cat\\b.png\n", {1: None}),
        ("/home/me/photos/dog/sub/c.png\n./cat/a.png\n", {3: None, 0: None}),
        ("b.png\n", {1: None}),
        ('"cat/a.png",1\n', {0: 1}),
    ],
)
def test_spellings(tmp_path, text, wanted):
    assert rows(tmp_path, text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cat/a.png\ncat/x.png\n",
            r"line 2: 'cat/x.png' is not one of the 5 training images; did you",
        ),
        ("name\n0\n\n0\n", r"line 4: '0' is already in line 2"),
        ("cat/a.png\nC:\\cat\\a.png\n", "line 2: .* is already in line 1"),
        ("5\n", "line 1: 5 is not an id in 0..4"),
        ("-1\n", "line 1: -1 is not an id"),
        ("a.png\n", r"line 1: 'a.png' is the name of 2 images \(cat/a.png, dog/a.png"),
        ("cat/a.png,bird\n", "line 1: the true label 'bird' is not a class; classes are cat, dog"),
        ("cat/a.png,2\n", "line 1: the true label '2' is not a class"),
        ("", "names no image"),
        ("file,label\n", "names no image"),
    ],
)
def test_problems_name_their_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        rows(tmp_path, text)
    assert "bad.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


CLEANLAB = "is_label_issue,label_quality,given_label,predicted_label"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"{CLEANLAB}\nFalse,0.9,0,0\nTrue,0.1,0,1\nTrue,0.2,1,0\n", [1, 2]),
        (f",{CLEANLAB}\n4,True,0.1,1,0\n0,False,0.9,0,0\n", [4]),
        (f"filename,{CLEANLAB}\ncat/b.png,True,0.1,cat,dog\ndog/a.png,False,1,dog,dog\n", [1]),
        ("index,outlier,nearest,distance,filename_outlier,filename_nearest\n"
         "0,9,1,0.5,photos/cat/a.png,dog/a.png\n1,9,2,0.6,photos/cat/a.png,cat/b.png\n", [0]),
        ("outlier,nearest,distance\ncat/b.png,cat/a.png,0.4\n", [1]),
        ("filename,index,error_code,is_valid\ndog/sub/c.png,3,ERROR_CORRUPT_IMAGE,False\n", [3]),
    ],
)  # fmt: skip
def test_tables_of_cleanlab_and_fastdup_name_suspects_without_true_labels(tmp_path, text, wanted):
    assert rows(tmp_path, text) == dict.fromkeys(wanted)


def test_what_a_table_of_label_issues_says_wrongly(tmp_path):
    with pytest.raises(ValueError, match=r"bad\.csv, no row has is_label_issue=True"):
        rows(tmp_path, f"{CLEANLAB}\nFalse,0.9,0,0\n")
    with pytest.raises(
        ValueError, match=r"line 3: is_label_issue must be True or False, got 'maybe'"
    ):
        rows(tmp_path, f"{CLEANLAB}\nTrue,0.9,0,0\nmaybe,0.9,0,0\n")


def test_test_images_cannot_be_forgotten(tmp_path):
    names = ImageIndex(FILES, 5, test_folder=True)
    with pytest.raises(ValueError, match="is a test image"):
        rows(tmp_path, "photos/test/cat/a.png\n", names)
    assert rows(tmp_path, "photos/train/cat/a.png\n", names) == {0: None}


def test_data_without_files_know_ids_alone(tmp_path):
    names = ImageIndex(None, 3)
    assert rows(tmp_path, "2\n0\n", names) == {2: None, 0: None}
    with pytest.raises(ValueError, match="the data has no files"):
        rows(tmp_path, "cat/a.png\n", names)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"1\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"cannot read .*'utf-8' codec"):
        read_lines(path)
    path.write_text("1\n2\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"bad.csv is UTF-16; save it as UTF-8$"):
        read_lines(path)


def test_the_forget_set_and_its_true_labels(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("dog/a.png,cat\ncat/b.png\n")
    truth = Truth(clean_label=torch.tensor([0, 0, 1, 1, 1]), corrupted=torch.zeros(5).bool())
    choose = FromFile(path=str(path))
    names = ImageIndex(FILES, 5)
    (found,) = choose(truth, rate=0.5, seed=0, names=names, class_names=CLASSES)
    assert found.tolist() == [1, 2]
    assert choose.true_label.tolist() == [-1, -1, 0, -1, -1]
    path.write_text("\n".join(map(str, range(5))))
    with pytest.raises(ValueError, match="names all 5 training images"):
        choose(truth, rate=0.5, seed=0, names=names, class_names=CLASSES)


@pytest.mark.parametrize("text", ["x" * 200_000, '"' + "a\n" * 200_000])
def test_a_field_of_absurd_length_is_no_name(tmp_path, text):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no list of images: field larger than field limit"):
        read_lines(path)
