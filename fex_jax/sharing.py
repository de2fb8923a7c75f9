"""Explainers on the Hugging Face hub: a folder with a card that says what it is."""

import json
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from fex_jax import checks, escape, export, modalities, objectives, report
from fex_jax.training.identity import digest

_SHOWN = 12  # labels in a card
# Of results.json; a path of this machine is of no use to others.
_FACTS = ("Data", "Protocol", "Features", "Predictor's accuracy", "Versions", "Device")
_LIMITS = """\
- A map says which features the classifier's answer depends on. It does not say that the answer is
  right, nor why the world is so.
- It is the explainer's estimate of what removing features would show. Where it matters, ask the
  classifier: `explainer(…, refine=100)`.
- Inputs of another kind than those of training get maps, too. Nobody has measured what they are
  worth.
- Features were removed as training removed them. Another removal asks another question."""


def save(
    explainer: Any,
    directory: str | pathlib.Path,
    *,
    run: str | pathlib.Path | None = None,
    license: str | None = None,
    name: str = "",
) -> pathlib.Path:
    """Writes an export with its card, README.md; `explain.load` opens it.

    Args:
      explainer: an `explain.Explainer`.
      directory: is made if it is not there.
      run: the folder of train.py and eval.py; the card says what it was trained on, and its scores.
      license: as the hub names it, as "apache-2.0"; None: the card names none.
      name: in the card's title and example; by default the directory.

    Raises:
      ValueError: a folder that cannot be written, or a run that is none, or of another explainer.
    """
    directory = checks.folder(directory, "save")
    settings = {field: getattr(explainer, field) for field in export.SETTINGS}
    with checks.room(directory):
        export.save_description(directory, explainer.predictor, explainer.backbone, **settings)
        export.save_weights(directory, explainer.params)
        text = card(explainer, name or directory.name, run=run, license=license)
        (directory / "README.md").write_text(text, encoding="utf-8")
    return directory


def push(
    explainer: Any,
    repo_id: str,
    *,
    run: str | pathlib.Path | None = None,
    license: str | None = None,
    private: bool = True,
    token: str | None = None,
) -> str:
    """Uploads what `save` writes, and returns the address of the commit.

    Args:
      explainer: an `explain.Explainer`.
      repo_id: "user/repo", made where it is not there.
      run, license: see `save`.
      private: of a repository that is made.
      token: of the hub; None: the one of `hf auth login`.

    Raises:
      ConnectionError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    with tempfile.TemporaryDirectory() as folder:
        save(explainer, folder, run=run, license=license, name=repo_id)
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder)
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise ConnectionError(f"{repo_id} was not uploaded: {error}") from error
    return str(commit.commit_url)


def card(
    explainer: Any,
    name: str,
    *,
    run: str | pathlib.Path | None = None,
    license: str | None = None,
) -> str:
    """The card: what it explains, how it is used, what it was trained on, scores and limits.

    Raises:
      ValueError: the run holds no config.json, or has trained another explainer.
    """
    predictor, backbone = explainer.predictor, explainer.backbone
    kind = predictor.config.family if predictor.inside else f"{predictor.name}, a black box"
    labels = ", ".join(map(escape.markdown, predictor.labels[:_SHOWN]))
    more = ", …" if len(predictor.labels) > _SHOWN else ""
    modality = modalities.of(predictor)
    count = sum(np.size(x) for x in jax.tree.leaves(explainer.params))
    method = objectives.KINDS[explainer.method].title
    revision = ', revision="main"' if "/" in name else ""  # of user/repo, and no folder
    lines = [
        "---",
        "library_name: fex-jax",
        *([f"license: {license}"] if license else []),
        "tags: [explainability, feature-attribution]",
        "---",
        f"# {escape.markdown(name)}",
        f"An explainer trained by {method} for a classifier of {predictor.modality}. One pass of "
        f"it says which {modality.features(explainer)} the classifier's answer depends on.",
        "## Use",
        f'```python\nimport fex_jax\n\nexplainer = fex_jax.load("{name}"{revision})\n'
        f"result = explainer({modality.THING})\n```",
        "## What it explains",
        f"- Classifier: {escape.markdown(kind)}, {len(predictor.labels)} classes: {labels}{more}",
        f"- Explainer: {type(backbone).__name__.removesuffix('Config')}, {count:,} parameters"
        + (", its backbone the classifier's" if explainer.shares_backbone else ""),
        "## Training",
        *_training(run, explainer),
        "## Scores",
        *_scores(run),
        "## Limits",
        _LIMITS,
    ]
    return "\n".join(lines).replace("---\n#", "---\n\n#").replace("\n## ", "\n\n## ") + "\n"


def _training(run: str | pathlib.Path | None, explainer: Any) -> list[str]:
    """What the files of a run say of its data, and how features were removed."""
    removal = f"- Removal: {escape.markdown(_removal(explainer))}"
    if run is None:
        return ["The run was not given.", removal]
    run = pathlib.Path(run).expanduser()
    if not (run / "config.json").is_file():
        raise ValueError(f"{run} has no config.json: expected the --workdir of train.py")
    _check_own(run, explainer)
    values = checks.read_json(run / "config.json")
    data = values.get("data", {})
    counted = (run / "run.json").is_file() and checks.read_json(run / "run.json").get("data", {})
    size, limit = counted and counted.get("size"), data.get("limit")
    said = {
        "Data": data.get("name"),
        "Split": data.get("train_split"),
        "Inputs": f"{min(limit or size, size):,}" if size else limit or "all",
        "Epochs": values.get("epochs"),
        "Batch size": values.get("batch_size"),
        "Seed": values.get("seed"),
    }
    known = {key: str(value) for key, value in said.items() if value not in (None, "")}
    return [*(f"- {key}: {escape.markdown(value)}" for key, value in known.items()), removal]


def _removal(explainer: Any) -> str:
    """What becomes of a removed feature."""
    predictor = explainer.predictor
    if not predictor.inside:
        return str(predictor.removal)
    if predictor.modality == "images":
        return f"cells become {explainer.fill:g}, after normalisation"
    becomes = {"mask": "become [MASK]", "delete": "are deleted"}[explainer.removal]
    return f"{explainer.unit}s {becomes}"


def _check_own(run: pathlib.Path, explainer: Any) -> None:
    """Raises a ValueError where a run has trained another explainer."""
    found = export.read(run)
    own = {name: getattr(explainer, name) for name in export.SETTINGS}
    if own != found.settings or digest(explainer.params) != digest(found.params):
        raise ValueError(
            f"{run} has trained another explainer than this: give the run that this is of, or none"
        )


def _scores(run: str | pathlib.Path | None) -> list[str]:
    """The table of eval.py."""
    path = None if run is None else pathlib.Path(run) / "eval" / "results.json"
    if path is None or not path.is_file():
        return ["None were measured: `eval.py` does."]
    results = json.loads(path.read_text())
    facts = {key: text for key, text in results["facts"].items() if key in _FACTS}
    return [report.markdown(results, facts).strip()]
