"""What the command line says of wrong input: one sentence, exit code 2, nothing written."""

from pathlib import Path

import pytest

from ngpt_lab.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"
PART = "--model.init_args.backbone.init_args."


@pytest.fixture
def refused(tmp_path, words, capsys):
    """Fits with wrong arguments and returns what is said of them."""

    def say(*wrong, model="ngpt"):
        folder = tmp_path / "run"
        files = [CONFIGS / f"{name}.yaml" for name in ("base", f"model/{model}", "size/debug")]
        right = [word for file in files for word in ("-c", str(file))]
        right += ["--data.source=TextFiles", f"--data.source.files={words}"]
        right += [f"--trainer.default_root_dir={folder}", "--trainer.accelerator=cpu"]
        with pytest.raises(SystemExit) as end:
            main(["fit", *right, *map(str, wrong)])
        out, told = capsys.readouterr()
        assert end.value.code == 2
        assert told.startswith("ngpt-lab: ")
        assert told.count("\n") == 1
        assert told.endswith("\n")
        assert "Traceback" not in told + out
        assert not folder.exists()
        return told

    return say


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("mlp=ngpt_lab.models.ngpt.NoSuchMLP", ("mlp", "has no attribute 'NoSuchMLP'")),
        ("mlp=NoSuchMLP", ("mlp", "NoSuchMLP")),
        ("mlp=ngpt_lab.nn.rotary.HalfRotary", ("mlp", "subclass", "MLP")),
        ("no_such_key=3", ("'no_such_key' is not accepted",)),
        ("mlp.init_args.no_such_key=3", ("'no_such_key' is not accepted",)),
        ("lm_head.init_args.granularity=matrix", ("granularity", "'vector', 'scalar', 'fixed'", "matrix")),
        ("attention_residual.init_args.init=[0.1]", ("lists 1 numbers for 2 layers",)),
        ("attention=fast", ("attention is 'fast': choose one of auto, sdpa",)),
        ("attention=flash", ("attention is 'flash', which runs on cuda alone", "use 'auto', 'sdpa' or 'eager'")),
        ("attention=flex", ("attention is 'flex', which cannot train on a cpu", "use 'auto', 'sdpa' or 'eager'")),
        ("dims.n_kv_heads=3", ("dims.n_heads (4) is not a multiple of dims.n_kv_heads (3)",)),
        ("dims.d_ff=0", ("dims.d_ff is 0: it must be at least 1",)),
        ("dims.d_model=wide", ("dims.d_model", "wide")),
        ("rotary.init_args.fraction=2.0", ("rotary fraction 2.0", "from 0 to 1")),
    ],
)
def test_a_wrong_part_key_or_size_is_named(argument, said, refused):
    told = refused(PART + argument)
    assert [word for word in said if word not in told] == []


def test_an_ablation_of_a_part_the_model_lacks_is_refused(refused):
    assert "'path' is not accepted" in refused("-c", CONFIGS / "ablation" / "slerp.yaml", model="nemotron")


def test_two_ablations_of_one_key_are_refused_with_both_names(refused):
    a, b = (CONFIGS / "ablation" / f"{name}.yaml" for name in ("no_qk_norm", "fixed_s_qk"))
    assert f"{a} and {b} both change qk_norm.granularity: use one of them" in refused("-c", a, "-c", b)
    assert f"{b} and {a} both change qk_norm.granularity: use one of them" in refused("-c", b, f"--config={a}")


@pytest.mark.parametrize("folder", [".", "ablation"])
def test_a_config_file_that_is_not_there_is_named(folder, tmp_path, refused):
    file = tmp_path / folder / "nowhere.yaml"
    assert f"there is no config file {file}" in refused("-c", file)


@pytest.mark.parametrize("folder", [".", "ablation"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a: [1\nb: {", "is not YAML"),
        (bytes(range(128, 256)), "is not YAML"),
        (b"- one\n- two\n", "holds no settings"),
        (b"", "holds no settings"),
    ],
)
def test_a_config_file_without_settings_is_named(folder, text, said, tmp_path, refused):
    file = tmp_path / folder / "wrong.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text)
    assert f"{file} {said}" in refused("-c", file)


def test_an_unknown_command_is_named(capsys):
    with pytest.raises(SystemExit) as end:
        main(["train"])
    assert end.value.code == 2
    assert capsys.readouterr().err == "ngpt-lab: 'train' is no command: ngpt-lab --help lists them\n"
