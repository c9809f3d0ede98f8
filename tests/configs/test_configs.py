"""Every config file composes, builds what it says, and an ablation file changes what it names and nothing else."""

from pathlib import Path

import pytest
import yaml

from ngpt_lab.errors import InputError
from ngpt_lab.training.cli import DryCLI
from ngpt_lab.training.composition import touched
from ngpt_lab.training.run_record import flatten

CONFIGS = Path(__file__).parents[2] / "configs"
MODELS = sorted(file.stem for file in (CONFIGS / "model").glob("*.yaml"))
SIZES = sorted(file.stem for file in (CONFIGS / "size").glob("*.yaml"))
DATA = sorted(file.stem for file in (CONFIGS / "data").glob("*.yaml"))
ABLATIONS = sorted((CONFIGS / "ablation").glob("*.yaml"))
# The ablations that the baseline has parts for, and those that are for it alone.
ON_NEMOTRON = set((Path(__file__).parent / "on_nemotron.txt").read_text().split())
CONTROLS = {"qk_norm", "fixed_norm", "unit_norm"}


def tree(file):
    return yaml.safe_load(file.read_text())


def dry(model, size, *more):
    files = [CONFIGS / f"{name}.yaml" for name in ("base", f"model/{model}", f"size/{size}", *more)]
    return DryCLI([word for file in files for word in ("-c", str(file))])


EVERYWHERE = [(model, size) for size in SIZES for model in ("ngpt", "nemotron")]
ELSEWHERE = [(model, "debug") for model in MODELS if model not in ("ngpt", "nemotron")]


@pytest.mark.parametrize(("model", "size"), [*EVERYWHERE, *ELSEWHERE])
def test_a_model_of_a_size_is_what_its_files_say(model, size, composer):
    built = dry(model, size)
    asked = tree(CONFIGS / "size" / f"{size}.yaml")
    backbone = built.model.backbone
    assert backbone.__class__.__module__ + "." + backbone.__class__.__name__ in {
        f"ngpt_lab.models.{module}.{name}" for module, name in (("ngpt", "NGPT"), ("nemotron", "Nemotron"), ("gpt", "GPT"))
    }
    for name, value in asked["model"]["init_args"]["backbone"]["init_args"]["dims"].items():
        assert getattr(backbone.dims, name) == value
    for key, value in (flatten(asked) | flatten(tree(CONFIGS / "model" / f"{model}.yaml"))).items():
        overridden = key.startswith("model.init_args.backbone.init_args.rotary")
        assert overridden or built.settings[key] == value, key
    assert all(p.is_meta for p in backbone.parameters())
    assert built.datamodule.seq_len == asked["data"]["init_args"]["seq_len"]
    assert backbone.on_sphere == bool(built.normalize_weights.every_n_steps)
    if size == "debug":
        light = composer(model).defaults
        assert light == {key: built.settings[key] for key in light}


def test_the_shape_of_normalized_nemotron_turns_the_whole_head_in_every_model():
    for model in ("ngpt", "nemotron"):
        rotary = dry(model, "normalized-nemotron-8b").model.backbone.rotary
        assert (rotary.channels, rotary.theta) == (128, 1e6)


@pytest.mark.parametrize("name", DATA)
def test_a_data_file_composes(name, words, monkeypatch):
    monkeypatch.chdir(words.parent)
    (words.parent / "data").mkdir(exist_ok=True)
    (words.parent / "data" / "words.txt").write_text(words.read_text())
    assert dry("nemotron", "debug", f"data/{name}").datamodule.seq_len == 64


@pytest.mark.parametrize("model", MODELS)
def test_a_model_file_states_whether_weights_are_normalised_and_how_it_is_trained(model):
    stated = tree(CONFIGS / "model" / f"{model}.yaml")
    assert stated["normalize_weights"]["every_n_steps"] in (0, 1)
    assert "weight_decay" in stated["model"]["init_args"]["optimizer"]["init_args"]
    assert "warmup" in stated["model"]["init_args"]["schedule"]["init_args"]


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda file: file.stem)
def test_an_ablation_trains_alone_and_changes_what_it_names(file, composer, data):
    model = composer("nemotron" if file.stem in CONTROLS else "ngpt")
    config = model.parsed(file)
    before, after = model.defaults, flatten(model.settings(config))
    named = {".".join(path) for path in touched(tree(file))}
    changed = {key.replace(".init_args", "") for key in {*before, *after} if before.get(key) != after.get(key)}
    assert [key for key in changed if not any(key == path or key.startswith(path + ".") for path in named)] == []
    assert model.first_loss(config, data).isfinite()


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda file: file.stem)
def test_an_ablation_that_names_a_class_swaps_it_and_one_that_sets_values_names_none(file, composer):
    """A file that named the default's class to set one of its values would put it back over another file's part."""
    model = composer("nemotron" if file.stem in CONTROLS else "ngpt")
    classes = {key: value for key, value in flatten(tree(file)).items() if key.endswith("class_path")}
    assert [key for key, value in classes.items() if model.defaults[key] == value] == []


@pytest.mark.parametrize("file", ABLATIONS, ids=lambda file: file.stem)
def test_an_ablation_of_parts_the_baseline_lacks_is_refused_by_its_key(file, composer):
    nemotron = composer("nemotron")
    if file.stem in ON_NEMOTRON:
        nemotron.laid_over(nemotron.base, file)
    else:
        key = {path[-1] for path in touched(tree(file))}.pop()
        with pytest.raises(InputError, match=f"Option '{key}' is not accepted"):
            nemotron.laid_over(nemotron.base, file)
