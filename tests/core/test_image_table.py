"""Tables of images: what is read, or the line that refuses it."""

from pathlib import Path

import pytest

from unlearn.core.image_table import read_table, sort_classes


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def read(folder: Path, text: str, encoding: str = "utf-8"):
    return read_table(write(folder, text, encoding), folder)


def test_path_and_label(tmp_path: Path):
    table = read(tmp_path, 'path,label\r\na.png,dog\r\n\r\n"sub,1/b.png",cat\r\nc\\d.png, dog \r\n')
    assert table.class_names == ("cat", "dog") and table.test is None
    assert [(x.number, x.path, x.label) for x in table.train] == [
        (2, "a.png", "dog"), (4, "sub,1/b.png", "cat"), (5, "c/d.png", "dog"),
    ]  # fmt: skip
    assert table.describe(Path("t.csv")) == "training and test images from t.csv: 3"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_columns_in_any_order_with_a_bom_and_umlauts(tmp_path: Path, mark: str):
    lines = [("Split", "extra", "Class", "File_Name"), ("Train", "1", "Bär", "ä.png"),
             ("val", "2", "Kuh", "b.png"), ("train", "3", "Kuh", "c.png"), ("dev", "", "Kuh", "d.png")]  # fmt: skip
    text = "".join(mark.join(line) + "\n" for line in lines)
    table = read(tmp_path, text, "utf-8-sig")
    assert table.class_names == ("Bär", "Kuh") and table.unused == ("dev",)
    assert [x.path for x in table.train] == ["ä.png", "c.png"]
    assert table.test is not None and [x.path for x in table.test] == ["b.png"]
    said = table.describe(Path("t.csv"))
    assert said == "2 training images and 1 test images (val) from t.csv; splits not used: dev"


def test_numbers_are_classes_in_their_order():
    assert sort_classes({"10", "9", "2"}) == ("2", "9", "10")
    assert sort_classes({"10.0", "9.0"}) == ("9.0", "10.0")
    assert sort_classes({"10", "9", "b"}) == ("10", "9", "b")
    assert sort_classes({"nan", "9"}) == ("9", "nan")


def test_absolute_paths_below_the_root(tmp_path: Path):
    text = f"path,label\n{tmp_path}/x/a.png,a\n./x/../b.png,b\n"
    assert [x.path for x in read(tmp_path, text).train] == ["x/a.png", "b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no image"),
        ("path,label\n", "names no image"),
        ("a.png,cat\nb.png,dog\n", "line 1: no column path and no column label; the first line must"),
        ("path,breed\na,b\n", "line 1: no column label; the first line must name the columns, path,label or"),
        ("path,file,label\na,a,b\n", "line 1: path and file are both a path"),
        ("path,label\na,b\nc,\n", "line 3: empty label"),
        ("path,label\n,b\n", "line 2: empty path"),
        ("path,label,split\na,b,\n", "line 2: empty split"),
        ("path,label\na,b\nc\n", "line 3: must have 2 columns, got 1"),
        ("path,label\na,b\nx/../a,c\n", "line 3: a is already in line 2"),
        ("path,label\na,b\nc,b\n", "must hold two or more classes, got ['b']"),
        ("path,label,split\na,b,train\nc,d,holdout\n", "line 3: split must be one of train, training, test, val"),
        ("path,label,split\na,b,train\nc,d,train\n", "holds the split train alone; name training and test"),
        ("path,label,split\na,b,test\nc,d,val\n", "holds the split test, val alone"),
        ("path,label,split\na,b,train\nb,c,train\nc,d,test\n", "line 4: class d has no training images"),
        ("path,label\n../a,b\nc,d\n", "line 2: ../a must lie below"),
        ("path,label\n/etc/passwd,b\nc,d\n", "line 2: /etc/passwd must lie below"),
        ("path,label\na\0,b\nc,d\n", "line 2: a\0 must lie below"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, said: str):
    with pytest.raises(ValueError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value) and "labels.csv" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_table(tmp_path: Path):
    with pytest.raises(ValueError, match=r"must be a CSV file; .*absent.csv does not exist"):
        read_table(tmp_path / "absent.csv", tmp_path)
    with pytest.raises(ValueError, match="is not UTF-8"):
        read(tmp_path, "path,label\nä,b\n", "latin-1")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="cannot read"):
        read_table(tmp_path / "folder.csv", tmp_path)


def test_a_changed_table_is_read_again(tmp_path: Path):
    assert len(read(tmp_path, "path,label\na,b\nc,d\n").train) == 2
    assert len(read(tmp_path, "path,label\na,b\nc,d\ne,d\n").train) == 3
