"""What names lead to, before anything is opened."""

import pytest

from configs import common, idexpo_adult
from fex_jax import attributions, finding


def test_every_method_is_a_function_of_its_name():
    """Breaks if eval.py knows a method by a name that the function does not have."""
    assert [method.__name__ for method in attributions.METHODS.values()] == list(finding.METHODS)


def test_all_forms_of_a_run_lead_to_its_export(tmp_path):
    """Breaks if a run, its export or one checkpoint is not taken for an explainer."""
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    (export / "explainer.json").write_text("{}")
    for form in ("run", "run/export", "run/checkpoints/200"):
        assert finding.explainer(tmp_path / form) == export
    with pytest.raises(FileNotFoundError, match="holds no explainer"):
        finding.explainer(tmp_path)


@pytest.mark.parametrize(
    "setting", ["predictor.path", "predictor.surrogate", "policy_backbone.path"]
)
def test_networks_of_a_config_are_looked_for(tmp_path, setting):
    """Breaks if a config's network that is not there is found to be missing only by training."""
    config = common.get_config()
    config.predictor.path = "models/digits_vit"
    finding.of_config(config)
    config.update_from_flattened_dict({setting: str(tmp_path / "no")})
    with pytest.raises(FileNotFoundError, match="no' is neither a directory nor"):
        finding.of_config(config)


def test_a_classifier_that_training_begins_needs_no_name():
    """Breaks if ID-ExpO of a table, which starts from nothing, asks for a classifier."""
    finding.of_config(idexpo_adult.get_config())
