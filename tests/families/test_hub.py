"""Model directories from strangers: every lie is one sentence, told before anything is built."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fex_jax import finding, pretrained
from fex_jax.families import hub
from tests import tiny_text

FILES = [
    ("vit", "config.json"), ("vit", "model.safetensors"), ("vit", "preprocessor_config.json"),
    ("bert", "tokenizer.json"), ("bert", "tokenizer_config.json"),
]  # fmt: skip


@pytest.fixture(scope="module")
def originals(predictor, tmp_path_factory):
    """A tiny ViT and a tiny BERT as saved."""
    root = tmp_path_factory.mktemp("originals")
    pretrained.save(root / "vit", predictor)
    pretrained.save(root / "bert", tiny_text.checkpoint())
    return root


@pytest.fixture(params=["vit", "bert"])
def saved(request, originals, tmp_path):
    """A copy of one of them that a test may damage."""
    return shutil.copytree(originals / request.param, tmp_path / request.param)


@pytest.fixture
def vit(originals, tmp_path):
    return shutil.copytree(originals / "vit", tmp_path / "vit")


def _edit(path, **changes):
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v != "remove"}))


def _refused(directory, message, **options):
    with pytest.raises(ValueError, match=message) as error:
        pretrained.load(str(directory), **options)
    return str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"problem_type": "ranking"}, "problem_type is 'ranking'; expected one of"),
        ({"problem_type": ["regression"]}, "problem_type is"),
        ({"num_labels": 1, "id2label": "remove"}, "num_labels 1, but its head has"),
        ({"num_labels": 7}, "num_labels 7, but its head has"),
    ],
)
def test_heads_of_another_kind_than_said(saved, changes, message):
    """Breaks if config.json says of a head what is not so, and it is explained all the same."""
    _edit(saved / "config.json", **changes)
    _refused(saved, message)


@pytest.mark.parametrize("count", [1, 0, -1, True, 2.0, "2"])
def test_fresh_heads_have_two_classes_or_more(vit, count):
    """Breaks if a head is made that says nothing."""
    _refused(vit, "num_classes is .*expected an integer of at least 2", num_classes=count)


@pytest.mark.parametrize(
    "field, value",
    [
        (field, value)
        for field in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        for value in (-1, 0, 10**5, 1e400, float("nan"), 2.0, "2", [2], True, {}, 10**30)
    ]
    + [("layer_norm_eps", value) for value in (-1, float("nan"), "small", [1e-6], True)]
    + [("hidden_act", value) for value in ("prelu", 1, ["gelu"])]
    + [("intermediate_size", value) for value in (0, 10**9, 1.5)]
    + [("model_type", value) for value in (["vit"], 7, "remove", "llama")]
    + [("architectures", value) for value in ("ViT", [1], {"a": 1}, ["LlamaForCausalLM"])]
    + [
        ("id2label", value)
        for value in ([1, 2], {"a": "b", "c": "d"}, {"0": "a"}, {"0": 1, "1": 2})
    ],
)
def test_every_field_of_a_config_is_checked(saved, field, value):
    """Breaks if a field of the wrong kind hangs, allocates, or ends in a traceback from inside."""
    _edit(saved / "config.json", **{field: value})
    message = _refused(saved, ".")
    assert len(message) < 500


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_hidden_layers": 12}, "says 12 layers, but its tensors have 1"),
        ({"hidden_size": 32}, r"says a hidden size of 32, but the tensor .* is \[16\]"),
        ({"num_attention_heads": 3}, "does not divide into 3 heads"),
    ],
)
def test_a_config_that_does_not_fit_its_tensors(saved, changes, message):
    """Breaks if a network is built before its sizes were compared with the file."""
    _edit(saved / "config.json", **changes)
    _refused(saved, message)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"size": {"height": 80_000, "width": 80_000}}, "size is .*from 1 to 4096"),
        ({"size": {"height": 0, "width": 0}}, "from 1 to 4096"),
        ({"size": 4097}, "from 1 to 4096"),
        ({"size": {"height": True, "width": True}}, "from 1 to 4096"),
        ({"size": {"height": 4096, "width": 4096}}, "more|at most|multiple"),
        ({"do_center_crop": True, "crop_size": 10**9}, "crop_size is 1000000000"),
        ({"crop_size": {"shortest_edge": 3}}, "crop_size is"),
        ({"image_std": [0, 1, 1]}, "image_std is"),
        ({"image_std": [1, 1]}, "image_std is .*a list of 3"),
        ({"image_mean": [float("nan"), 0, 0]}, "NaN is no number"),
        ({"image_mean": "grey"}, "image_mean is"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"resample": 9}, "resample is 9"),
        ({"do_resize": "yes"}, "do_resize is 'yes'; expected true or false"),
        ({"image_processor_type": 3}, "image_processor_type is 3"),
    ],
)
def test_every_field_of_a_preprocessor_is_checked(vit, changes, message):
    """Breaks if a processor of 80,000 px asks for 48 GiB, or NaN pixels reach the classifier."""
    _edit(vit / "preprocessor_config.json", **changes)
    _refused(vit, message)


def test_patches_are_bounded(vit):
    """Breaks if a side that is allowed, in tiny patches, asks for more than a machine has."""
    _edit(vit / "preprocessor_config.json", size=4096)
    _edit(vit / "config.json", patch_size=8)
    _refused(vit, "262,144 patches; at most 65,536")


@pytest.mark.parametrize(
    "value, message",
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1e300, "NaN or infinite")],
)
def test_tensors_are_finite(saved, value, message):
    """Breaks if one NaN weight makes every map NaN; 1e300 is infinite in float32."""
    tensors = load_file(saved / "model.safetensors")
    tensors["classifier.bias"] = np.full_like(tensors["classifier.bias"], 0, np.float64)
    tensors["classifier.bias"][0] = value
    save_file(tensors, saved / "model.safetensors")
    _refused(saved, f"classifier.bias holds {message}")


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
def test_tensors_are_floats(saved, dtype):
    """Breaks if quantised weights are read as if they were the weights."""
    tensors = load_file(saved / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"].astype(dtype)
    save_file(tensors, saved / "model.safetensors")
    _refused(saved, "classifier.weight holds .*expected floats")


@pytest.mark.parametrize("kind, name", FILES)
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\x00\xff" * 50, b"[" * 100_000,
                                     b'{"a": ' + b"9" * 5000 + b"}", "half"])  # fmt: skip
def test_truncated_and_foreign_files_are_one_line(originals, tmp_path, kind, name, content):
    """Breaks if an interrupted download or another program's file ends in a traceback."""
    saved = shutil.copytree(originals / kind, tmp_path / kind)
    path = saved / name
    path.write_bytes(path.read_bytes()[:-40] if content == "half" else content)
    message = _refused(saved, name.replace(".", r"\."))
    assert "\n" not in message


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "",
                                  "a\\b", 7, None, ["x"], {"x": "y"}, "\x1b[2J", "\ud800",
                                  "x" * 256])  # fmt: skip
def test_shards_are_plain_names(vit, name):
    """Breaks if an index makes us open files elsewhere on the machine."""
    shutil.move(vit / "model.safetensors", vit.parent / "x.safetensors")
    index = {"weight_map": {"classifier.weight": name}}
    (vit / "model.safetensors.index.json").write_text(json.dumps(index))
    _refused(vit, "expected a plain name inside it")


@pytest.mark.parametrize("kind, name", FILES)
def test_links_out_of_the_directory_are_refused(originals, tmp_path, kind, name):
    """Breaks if an archive's link shows a file of the machine; the hub's cache is links itself."""
    saved = shutil.copytree(originals / kind, tmp_path / kind)
    shutil.move(saved / name, saved.parent / name)
    (saved / name).symlink_to(saved.parent / name)
    _refused(saved, "outside its directory")


def test_the_cache_of_the_hub_is_read(originals, tmp_path):
    """Breaks if the links by which huggingface_hub stores a download count as links elsewhere."""
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    for file in (originals / "vit").iterdir():
        shutil.copy(file, cache / "blobs" / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert pretrained.load(str(snapshot)).config.num_layers == 1


def test_paths_are_never_asked_of_the_hub(tmp_path, monkeypatch, vit):
    """Breaks if a misspelt path downloads a stranger's model of that name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "file").write_text("")
    for path in ("./x", "../x", "/x", "~/x", "~x", "a/b/c", "a\\b", "C:\\x", "x/", "models/typo",
                 "file", "weights.safetensors", "a/model.bin", "", ".", "a//b", "a b", "x" * 5000,
                 "a\0b"):  # fmt: skip
        with pytest.raises(
            (FileNotFoundError, ValueError), match="neither a directory|config.json"
        ):
            pretrained.load(path)
    (vit / "config.json").unlink()
    _refused(vit, "has no config.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert finding.classifier("~/models").samefile(tmp_path / "models")


def test_labels_that_repeat_survive_saving():
    """Breaks if one of two classes of a name is lost: ImageNet has two cranes."""
    labels = ("crane", "cat", "crane", "crane (0)")
    config = json.loads(json.dumps(hub.head_config(labels, "softmax")))
    assert hub.read_labels(config, 4) == labels
    assert sorted(config["label2id"].values()) == [0, 1, 2, 3]
    assert config["label2id"]["cat"] == 1 and config["label2id"]["crane (0)"] == 3
    assert "crane" not in config["label2id"]
