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
    """Breaks if members of a WebDataset are left out, what is no picture is read, or a tar that was
    cut short or has a damaged header loses its items in silence."""
    members = {"a/0.png": png(0), "a/0.json": b"{}", "a/1.jpg": png(1), "2.png": png(2)}
    path = tar(tmp_path / "w.tar", members)
    expected = {f"w.tar/{name}": c for name, c in members.items() if not name.endswith("json")}
    assert read(path) == expected
    whole = path.read_bytes()
    (tmp_path / "w.tar.gz").write_bytes(gzip.compress(whole))
    assert list(read(tmp_path / "w.tar.gz").values()) == list(expected.values())

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
    """Breaks if pictures of ImageNet's own files are not found, or a torn file stops the job."""
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "train-00000-of-00001"
    with tf.io.TFRecordWriter(str(path)) as file:
        for i in range(3):
            content = tf.train.Feature(bytes_list=tf.train.BytesList(value=[png(i)]))
            features = tf.train.Features(feature={"image/encoded": content})
            file.write(tf.train.Example(features=features).SerializeToString())
    name = path.name
    assert read(path) == {f"{name}:{i + 1}": png(i) for i in range(3)}
    path.write_bytes(path.read_bytes()[:-20])
    found = read(path)
    assert list(found) == [f"{name}:1", f"{name}:2", name]
    assert "cannot be read to its end" in found[name][0]
