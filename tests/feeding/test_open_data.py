"""What people have, as a source: every form gives the same items, what is skipped is counted."""

import csv
import io
import json
import os
import pathlib

import numpy as np
import pandas as pd
import pyarrow
import pytest
from PIL import Image

from fex_jax import data, feeding, host, settings, text_data
from fex_jax.host import black_box
from tests import tiny_text

rng = np.random.default_rng(0)
PICTURES = rng.integers(0, 256, (6, 32, 32, 3), np.uint8)
TEXTS = ["a good film", "a bad plot", "not awful", "very dull , not fun"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Six pictures of several formats beside and below each other, and what is none."""
    root = tmp_path_factory.mktemp("pictures")
    for name in ("deep/er", ".hidden", "__MACOSX"):
        (root / name).mkdir(parents=True)
    names = ["a.ppm", "b.BMP", "deep/c.tiff", "deep/d.webp", "deep/er/e.jp2", "deep/er/f.gif"]
    for name, picture in zip(names, PICTURES, strict=True):
        options = {"lossless": True} if name.endswith("webp") else {}
        Image.fromarray(picture).save(root / name, **options)
    (root / "notes.md").write_text("none")
    for name in (".hidden/g.png", "__MACOSX/h.png"):
        Image.fromarray(PICTURES[0]).save(root / name)
    (root / "torn.png").write_bytes((root / "a.ppm").read_bytes()[:900])
    return root


def pictures(source: data.Source, predictor) -> set[bytes]:
    batches = data.eval_stream(source, predictor.preprocessing, 4)
    return {image.tobytes() for batch in batches for image in batch["image"]}


class Streamed:
    """As a `datasets.IterableDataset` is read: rows one after the other."""

    column_names = ["label", "image"]

    def __init__(self, items: list):
        self.items = items

    def __iter__(self):
        return ({"label": i, "image": item} for i, item in enumerate(self.items))


class Rows(Streamed):
    """As a `datasets.Dataset` is read: rows by number."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> dict:
        return {"label": i, "image": self.items[i]}


def in_form(form: str):
    """The six pictures as people have them."""
    items = [Image.fromarray(picture) for picture in PICTURES]
    match form:
        case "array":
            return PICTURES
        case "floats":
            return PICTURES / np.float32(255)
        case "list":
            return list(PICTURES)
        case "PIL":
            return items
        case "generator":
            return (picture for picture in items)
        case "DataFrame":
            pandas = pytest.importorskip("pandas")
            return pandas.DataFrame({"image": list(PICTURES), "label": range(6)})
        case "arrow":
            files = [io.BytesIO() for _ in items]
            for file, item in zip(files, items, strict=True):
                item.save(file, "png")
            return pyarrow.table({"image": [{"bytes": file.getvalue()} for file in files]})
        case "datasets":
            return Rows(items)
        case "streamed datasets":
            return Streamed(items)


@pytest.mark.parametrize(
    "form",
    [
        "array",
        "floats",
        "list",
        "PIL",
        "generator",
        "DataFrame",
        "arrow",
        "datasets",
        "streamed datasets",
    ],
)
def test_pictures_are_taken_as_they_are(predictor, form):
    """Breaks if a form of the same pictures gives others, fewer, or labels of its own."""
    source, _, skipped = feeding.open_data(predictor, in_form(form))
    assert (source.size, skipped, source.labels) == (6, "", predictor.labels)
    assert pictures(source, predictor) == {picture.tobytes() for picture in PICTURES}


def test_a_folder_needs_no_classes(predictor, folder):
    """Breaks if a format or depth is passed over, a hidden file is taken, or a skip is not said."""
    source, _, skipped = feeding.open_data(predictor, str(folder))
    assert source.size == 6
    whole = {PICTURES[i].tobytes() for i in range(5)}  # a GIF has 256 colours
    assert whole < pictures(source, predictor)
    assert skipped.startswith("; skipped 4: ")
    assert "2 hidden" in skipped and "1 .md" in skipped and "torn.png" in skipped
    files = [*folder.rglob("*.png"), folder / "a.ppm"]
    assert feeding.open_data(predictor, files)[0].size == 3  # hidden ones, if they are named, too


def test_an_iterators_pictures_stay_small(predictor):
    """Breaks if a generator of photographs fills the memory."""
    large = (np.full((300, 200, 3), i, np.uint8) for i in range(100))
    source, _, _ = feeding.open_data(predictor, large, limit=3)
    assert source.size == 3
    decoded = source.decode(next(iter(source.records)))
    assert decoded["image"].shape == (72, 48, 3)  # one and a half of the predictor's 32


def test_a_split_loses_and_shares_nothing(predictor):
    """Breaks if a held-out item is trained on."""
    source, _, _ = feeding.open_data(predictor, PICTURES)
    first, rest = source.split(2)
    found = pictures(first, predictor), pictures(rest, predictor)
    assert (first.size, rest.size) == (2, 4) and not found[0] & found[1]
    assert len(found[0] | found[1]) == 6
    texts, _, _ = feeding.open_data(tiny_text.checkpoint(), TEXTS)
    first, rest = texts.split(1)
    assert sorted(first.texts + rest.texts) == sorted(TEXTS) and first.size == 1


@pytest.mark.parametrize("limit", [None, 20])
def test_what_fit_held_out_is_scored(predictor, text_table, tmp_path, limit):
    """Breaks if eval.py scores items of a run of `fit` that it was trained on."""

    def scored(model, path) -> tuple:
        source, own, _ = feeding.open_data(model, path, limit)
        config = settings.default()
        config.update_from_flattened_dict(own)
        return *feeding.held_out(source), feeding.open_split(model, config)

    kept, rest, found = scored(tiny_text.checkpoint(), text_table)
    assert found.texts == kept.texts and found.size == (8 if limit is None else 5)
    assert rest.size == (32 if limit is None else 15)
    for number in range(40):
        pixels = np.full((32, 32, 3), number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    kept, rest, found = (pictures(part, predictor) for part in scored(predictor, tmp_path))
    assert found == kept and not found & rest and len(found) == (8 if limit is None else 5)


def write_texts(root: pathlib.Path, form: str):
    rows = [{"id": i, "review": text} for i, text in enumerate([*TEXTS, " "])]
    path = root / f"texts.{form}"
    match form:
        case "csv" | "tsv":
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="," if form == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        case "jsonl":
            path.write_text("\n".join(map(json.dumps, rows)))
        case "parquet":
            parquet = pytest.importorskip("pyarrow.parquet")
            parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case "txt":
            path.write_text("\n".join([*TEXTS, " "]))
        case "folder":
            (path / "deep").mkdir(parents=True)
            for row in rows:
                (path / "deep" / f"{row['id']}.txt").write_text(row["review"])
        case "DataFrame":
            return pytest.importorskip("pandas").DataFrame(rows)
        case "generator":
            return (row["review"] for row in rows)
        case "list":
            return [row["review"] for row in rows]
    return path


@pytest.mark.parametrize(
    "form",
    ["csv", "tsv", "jsonl", "parquet", "txt", "folder", "DataFrame", "generator", "list"],
)
def test_texts_are_taken_as_they_are(tmp_path, form):
    """Breaks if a form of the same texts gives others, or a blank one ends a run or is not said."""
    predictor = tiny_text.checkpoint()
    source, _, skipped = feeding.open_data(predictor, write_texts(tmp_path, form))
    assert isinstance(source, text_data.Source) and sorted(source.texts) == sorted(TEXTS)
    assert skipped == "; skipped 1: 1 without text"


@pytest.mark.parametrize(
    "given, message",
    [
        ("nowhere", "nowhere is not there; expected a folder of images"),
        (np.zeros((32, 32, 3)), r"shape \(32, 32, 3\); expected \[B, H, W, 3\]"),
        (7, "int cannot be trained on: expected a folder"),
        ([], "the data holds nothing to train on"),
        ({"train": [], "test": []}, "a dict of train, test: choose one"),
    ],
)
def test_what_cannot_be_used_is_said(predictor, given, message):
    """Breaks if data of another form ends in a traceback from inside."""
    with pytest.raises(ValueError, match=message):
        feeding.open_data(predictor, given)


def test_what_is_no_text_is_said(tmp_path):
    """Breaks if a misspelt file is taken for a text, or a column for another."""
    predictor = tiny_text.checkpoint()
    with pytest.raises(ValueError, match="no file or folder nowhere.csv"):
        feeding.open_data(predictor, "nowhere.csv")
    with pytest.raises(ValueError, match="columns id, review but no 'text'"):
        feeding.open_data(predictor, write_texts(tmp_path, "csv"), column="text")
    with pytest.raises(ValueError, match="text 1 is of type int"):
        feeding.open_data(predictor, ["good", 3])
    for text, message in (
        ("", "texts.csv is empty"),
        ("text;label\na good film;1\n", "one column, 'text;label': separate columns by commas"),
        ("text,text\na,b\n", "texts.csv has the column 'text' twice: rename one"),
        ("text,label\na, b,1\n", "texts.csv, line 2, has not the 2 columns of line 1"),
        ('text\na\n"b\nc\n', "texts.csv, after line 2, is no CSV: unexpected end of data"),
        ("text,label\n,1\n", "texts.csv holds nothing to train on; skipped 1: 1 without text"),
    ):
        (tmp_path / "texts.csv").write_text(text)
        with pytest.raises(ValueError, match=message):
            feeding.open_data(predictor, tmp_path / "texts.csv")
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8"):
        feeding.open_data(predictor, path)
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="^[^\n]*cut.parquet cannot be read as Parquet"):
        feeding.open_data(predictor, tmp_path / "cut.parquet")
    frame = pd.DataFrame([["a", "b"]], columns=["text", "text"])
    with pytest.raises(ValueError, match="the data has the column 'text' twice: rename one"):
        feeding.open_data(predictor, frame)
    (tmp_path / "lines.txt").write_text("one\u2028text\x0conly\nand another\n", "utf-8")
    source, _, skipped = feeding.open_data(predictor, tmp_path / "lines.txt")
    assert set(source.texts) == {"one\u2028text\x0conly", "and another"} and not skipped


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.png"])
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path, name):
    """Breaks if a named pipe, of which reading never ends, is opened."""
    os.mkfifo(tmp_path / name)
    if name == "pipe.txt":
        with pytest.raises(ValueError, match="pipe.txt is no file to read"):
            feeding.open_data(tiny_text.checkpoint(), tmp_path)
    else:
        box = black_box.of(host(len, labels=("a", "b"), input=(32, 32, 3)))
        with pytest.raises(ValueError, match="holds nothing to train on; skipped 1"):
            feeding.open_data(box, tmp_path)
