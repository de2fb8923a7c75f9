"""What a job reads: every kind of file, whole and damaged, against what was written into it."""

import gzip
import io
import json
import os
import pathlib
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fex_jax.batch.items import open_input


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def read(path, modality="images", **columns) -> dict[str, object]:
    """Id → thing, or the error's text in a list; the same at a second reading."""
    found = open_input(path, modality, **columns)
    items = list(found.items())
    assert [item.id for item in found.items()] == [item.id for item in items]
    assert len({item.id for item in items}) == len(items)
    shares = [item.share for item in items]
    assert shares == sorted(shares) and all(0 < share <= 1 for share in shares)
    return {x.id: [str(x.thing)] if isinstance(x.thing, ValueError) else x.thing for x in items}


def tar(path: pathlib.Path, members: dict[str, bytes], mode: str = "w") -> pathlib.Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return path


def test_a_folder_gives_its_pictures_at_any_depth(tmp_path):
    """Breaks if a picture is left out, something else is read, or ids are not those of the files
    below the folder."""
    for name in ("b.png", "a/c.JPG", ".hidden.png", "notes.doc", "a/table.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png(0))
    assert read(tmp_path) == {"a/c.JPG": tmp_path / "a/c.JPG", "b.png": tmp_path / "b.png"}
    assert read(f"{tmp_path}/a/*.JPG") == {"c.JPG": tmp_path / "a/c.JPG"}
    assert read(f"{tmp_path}/**/*.JPG") == {"a/c.JPG": tmp_path / "a/c.JPG"}
    with pytest.raises(ValueError, match=r"notes.doc is of no kind that is read; expected .*\.bmp"):
        open_input(tmp_path / "notes.doc", "images")
    with pytest.raises(ValueError, match="nothing to explain"):
        (tmp_path / "empty").mkdir()
        open_input(tmp_path / "empty", "images")
    with pytest.raises(ValueError, match=r"no file .*absent"):
        open_input(tmp_path / "absent", "images")


def test_names_that_are_no_utf8_have_ids(tmp_path):
    """Breaks if such a name ends in a UnicodeEncodeError when it is written to Parquet."""
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png(0))
    (name,) = read(tmp_path)
    assert name.encode() == b"\\udcff.png"


def test_csv_rows_are_items_and_bad_ones_errors(tmp_path):
    """Breaks if a row with too few cells, a wrong byte or an empty text stops the job, shifts the
    numbers of the others, or is left out."""
    path = tmp_path / "t.csv"
    path.write_bytes(
        b'\xef\xbb\xbftext,n\ngood,1\n\n"two\nlines",2\nshort\nwrong \xff,4\n,5\n"a ""b""",6\n'
    )
    found = read(path, "texts")
    assert found == {
        "t.csv:1": "good",
        "t.csv:2": "two\nlines",
        "t.csv:3": ["the row has 1 cells, the first line 2"],
        "t.csv:4": ["it is not UTF-8"],
        "t.csv:5": ["there is none"],
        "t.csv:6": 'a "b"',
    }
    (tmp_path / "t.tsv").write_text('text\tn\na "b\t1\n')
    assert read(tmp_path / "t.tsv", "texts") == {"t.tsv:1": 'a "b'}
    with pytest.raises(ValueError, match="has no column body; it has text, n: name the one"):
        read(path, "texts", column="body")


def test_line_ends_of_any_kind(tmp_path):
    """Breaks if a table with CR line ends ends the job, or a line end within quotes is lost."""
    path = tmp_path / "t.csv"
    for end in (b"\r", b"\n", b"\r\n"):
        path.write_bytes(b'text,n\none,1\n"two\rlines",2\n'.replace(b"\n", end))
        assert read(path, "texts") == {"t.csv:1": "one", "t.csv:2": "two\rlines"}


def test_a_file_without_the_column_is_an_error_of_its_own(tmp_path):
    """Breaks if one table of many that lacks the column, or whose first line is no CSV, ends the
    job at every start; or if a misspelt column gives a folder of errors."""
    for name, lines in (("a", "text\n1\n"), ("b", "body\n2\n"), ("c", "text\n3\n"), ("d", '"')):
        (tmp_path / f"{name}.csv").write_text(lines)
    found = read(tmp_path, "texts")
    assert list(found) == ["a.csv:1", "b.csv", "c.csv:1", "d.csv"] and found["c.csv:1"] == "3"
    assert "b.csv has no column text or sentence" in found["b.csv"][0]
    assert "cannot be read to its end" in found["d.csv"][0]
    (tmp_path / "a.csv").write_text("body\n1\n")
    assert list(read(tmp_path, "texts")) == ["a.csv", "b.csv", "c.csv:1", "d.csv"]
    with pytest.raises(ValueError, match="a.csv has no column title; it has body: name the one"):
        read(tmp_path, "texts", column="title")


def test_json_lines_are_items_and_bad_ones_errors(tmp_path):
    """Breaks if a broken line stops the job, or text and ids come from another key."""
    path = tmp_path / "t.jsonl"
    lines = ['{"text": "one", "n": "a"}', "{broken", "", "[1]", '{"n": "b"}', '{"text": 5, "n": 7}']
    path.write_text("\n".join(lines))
    found = read(path, "texts", key="n")
    assert list(found) == ["a", "t.jsonl:2", "t.jsonl:4", "b", "7"]
    assert found["a"] == "one" and found["b"] == ["there is none"]
    assert (
        "is no JSON object" in found["t.jsonl:2"][0] and "it is no object" in found["t.jsonl:4"][0]
    )
    assert found["7"] == ["it is of type int; expected a text"]
    path.write_text("\n".join(['{"n": 0}', "{broken", '{"text": "one", "n": 1}']))
    found = read(path, "texts", key="n")
    assert list(found) == ["0", "t.jsonl:2", "1"]
    assert found["0"] == ["there is none"] and found["1"] == "one"
    with pytest.raises(ValueError, match="t.jsonl has no column body; it has n: name the one"):
        read(path, "texts", column="body")


def test_parquet_holds_contents_paths_and_hugging_faces_images(tmp_path):
    """Breaks if a picture in a table is not found, or a damaged file stops the job."""
    contents = [png(i) for i in range(100)]
    pq.write_table(pa.table({"image": contents}), tmp_path / "a.parquet")
    assert list(read(tmp_path / "a.parquet").values()) == contents
    images = [{"bytes": contents[0], "path": None}, {"bytes": None, "path": "sub/x.png"}, None]
    pq.write_table(pa.table({"jpg": images}), tmp_path / "b.parquet")
    assert list(read(tmp_path / "b.parquet").values()) == [
        contents[0], tmp_path / "sub/x.png", ["there is none"]
    ]  # fmt: skip
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-50])
    found = read(f"{tmp_path}/*.parquet")
    assert list(found) == ["a.parquet", "b.parquet:1", "b.parquet:2", "b.parquet:3"]
    assert "cannot be read to its end" in found["a.parquet"][0]


def test_an_id_that_comes_twice_is_an_error_the_second_time(tmp_path):
    """Breaks if two items get one id, or the second is left out in silence."""
    rows = [{"text": t, "id": i} for t, i in (("a", "x"), ("b", "x"), ("c", None), ("d", "y"))]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path / "t.jsonl", "texts", key="id")
    assert found == {
        "x": "a",
        "t.jsonl:2": ["an item before it has its id, x"],
        "t.jsonl:3": ["it has no id"],
        "y": "d",
    }
    tar(tmp_path / "t.tar", {"x.png": png(0)})
    tar(tmp_path / "t.tar", {"x.png": png(1)}, "a")
    assert read(tmp_path / "t.tar") == {
        "t.tar/x.png": png(0), "t.tar:2": ["an item before it has its id, t.tar/x.png"]
    }  # fmt: skip


def test_tars_give_what_can_be_read_of_them(tmp_path):
    """Breaks if members of a WebDataset are left out, what is no picture or hidden is read, or a
    tar that was cut short or has a damaged header loses its items in silence."""
    members = {"a/0.png": png(0), "a/0.json": b"{}", "a/1.jpg": png(1), "2.png": png(2)}
    path = tar(tmp_path / "w.tar", members)
    expected = {f"w.tar/{name}": c for name, c in members.items() if not name.endswith("json")}
    assert read(path) == expected
    whole = path.read_bytes()
    (tmp_path / "w.tar.gz").write_bytes(gzip.compress(whole))
    assert list(read(tmp_path / "w.tar.gz").values()) == list(expected.values())

    hidden = ["._2.png", "a/._0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png"]
    seen = ["./5.png", "../6.png"]
    tar(tmp_path / "h.tar", dict.fromkeys([*hidden, *seen], png(5)))
    assert list(read(tmp_path / "h.tar")) == [f"h.tar/{name}" for name in seen]

    third = whole.index(b"a/1.jpg")
    path.write_bytes(whole[:third] + b"\1" * 512 + whole[third + 512 :])
    found = read(path)
    assert list(found) == ["w.tar/a/0.png", "w.tar"]
    assert found["w.tar"] == ["the file cannot be read to its end: a header is damaged"]
    path.write_bytes(whole[: third + 520])
    assert list(read(path)) == ["w.tar/a/0.png", "w.tar"]
    path.write_bytes(b"no tar")
    assert list(read(path)) == ["w.tar"]


def test_tfrecords_are_read_by_tensorflow(tmp_path):
    """Breaks if pictures of ImageNet's own files are not found, or a torn file stops the job; or if
    an Example without the picture does, or ids may not be integers."""
    tf = pytest.importorskip("tensorflow")
    train = tf.train

    def write(path: pathlib.Path, *examples: dict[str, bytes | int]) -> None:
        with tf.io.TFRecordWriter(str(path)) as file:
            for example in examples:
                found = {
                    name: train.Feature(bytes_list=train.BytesList(value=[value]))
                    if isinstance(value, bytes)
                    else train.Feature(int64_list=train.Int64List(value=[value]))
                    for name, value in example.items()
                }
                features = train.Features(feature=found)
                file.write(train.Example(features=features).SerializeToString())

    path = tmp_path / "train-00000-of-00001"
    write(path, *({"image/encoded": png(i)} for i in range(3)))
    name = path.name
    assert read(path) == {f"{name}:{i + 1}": png(i) for i in range(3)}
    path.write_bytes(path.read_bytes()[:-20])
    found = read(path)
    assert list(found) == [f"{name}:1", f"{name}:2", name]
    assert "cannot be read to its end" in found[name][0]

    images = {"image": png(0), "n": 0}, {"image": 5, "n": 7}, {"image": png(1)}
    write(path, {"n": 3}, *images, {"image": png(2), "n": b"x"})
    assert read(path, key="n") == {
        "3": ["there is none"], "0": png(0), "7": ["it is of type int; expected a picture's content"
        " or path"], f"{name}:4": ["it has no id"], "x": png(2),
    }  # fmt: skip
    with pytest.raises(ValueError, match="has no column body; it has n: name the one"):
        read(path, column="body")
