"""Folders of class folders: what is a class, what is a file of it, and what is reported."""

import logging
import os

import pytest

from fex_jax.data.folders import class_files, plain_files

ENDINGS = {".jpg", ".png"}


def _write(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x") if path.suffix != ".d" else path.mkdir()


def _names(root, found):
    return {k: [str(f.relative_to(root)) for f in files] for k, files in found.items()}


def test_classes_are_folders_with_files_to_read(tmp_path, caplog):
    """Breaks if what systems and editors leave becomes a class, or something is left out mutely."""
    _write(
        tmp_path, "cat/1.png", "cat/0.JPG", "cat/deep/er/2.png", "dog/a.jpg", "dog/a.txt",
        "dog/b.txt", "dog/Thumbs.db", "dog/README", "cat/.ipynb_checkpoints/0.png",
        ".git/x/0.png", "__MACOSX/cat/._1.png", "cat/__MACOSX/0.png", "cat/._1.png",
        "cat/.DS_Store", "top.png", "notes/only.txt", "bird/empty.d",
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        found = class_files(tmp_path, ENDINGS)
    assert _names(tmp_path, found) == {
        "cat": ["cat/0.JPG", "cat/1.png", "cat/deep/er/2.png"],
        "dog": ["dog/a.jpg"],
    }
    (message,) = caplog.messages
    for part in ("3 .txt", "1 .db", "1 without an ending", "1 beside the class", "6 hidden"):
        assert part in message
    assert "without a file to read: bird, notes" in message


def test_a_clean_folder_says_nothing(tmp_path, caplog):
    """Breaks if every run warns, so that nobody reads it."""
    _write(tmp_path, "cat/1.png", "dog/1.png")
    class_files(tmp_path, ENDINGS)
    assert not caplog.messages


def test_links_are_followed_but_not_in_circles(tmp_path):
    """Breaks if a data set made of links is empty, or a link to its own folder never ends."""
    _write(tmp_path, "store/cat/1.png", "data/dog/2.png")
    data = tmp_path / "data"
    os.symlink(tmp_path / "store" / "cat", data / "cat")
    os.symlink(data / "dog", data / "dog" / "self")
    os.symlink(data, data / "dog" / "up")
    os.symlink(data / "dog" / "2.png", data / "dog" / "3.png")
    assert _names(data, class_files(data, ENDINGS)) == {
        "cat": ["cat/1.png"],
        "dog": ["dog/2.png", "dog/3.png"],
    }


@pytest.mark.parametrize(
    "names, message",
    [
        ([], "is no folder"),
        (["data/a.txt"], "holds no class folders.*1 beside the class folders"),
        (["data/cat/a.txt", "data/cat/b.txt"], "skipped 2 files: 2 .txt; .*to read: cat"),
        (["data/.cat/1.png"], "holds no class folders"),
        (["data/Cat/1.png", "data/cat/1.png"], "'Cat' and 'cat', which name one class"),
        (["data/polar bear/1.png", "data/polar_bear/1.png"], "which name one class"),
    ],
)
def test_no_class_and_no_telling_which(names, message, tmp_path):
    """Breaks if a wrong path trains on nothing, or one class is split in two."""
    _write(tmp_path, *names)
    with pytest.raises(ValueError, match=message):
        class_files(tmp_path / "data", ENDINGS)


def test_a_folder_of_nothing_but_files_has_no_classes(tmp_path):
    """Breaks if pictures without classes cannot be listed, or class folders are flattened."""
    _write(tmp_path, "b.png", "a.JPG", ".hidden.png", "notes.txt")
    assert [file.name for file in plain_files(tmp_path, ENDINGS)] == ["a.JPG", "b.png"]
    _write(tmp_path, "cat/1.png")
    assert plain_files(tmp_path, ENDINGS) == plain_files("", ENDINGS) == []


def test_an_empty_path_is_not_the_working_directory():
    """Breaks if a config without a path trains on what happens to lie around."""
    with pytest.raises(ValueError, match="'' is no folder"):
        class_files("", ENDINGS)
