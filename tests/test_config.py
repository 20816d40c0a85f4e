"""The door: what comes in is checked once, and every mistake is named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsearch.config import StudyConfig, difference, load, make
from lrsearch.errors import ConfigError, LrsearchError, UsageError
from lrsearch.schedules import Space
from lrsearch.settings import PRUNERS, SETTINGS, json_schema


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_every_field_of_the_configuration_is_a_setting() -> None:
    assert set(SETTINGS) == set(StudyConfig.__dataclass_fields__)


def test_an_object_of_many_lines_in_the_place_of_a_setting_is_told_in_one() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    assert "\n" in repr(optimizer)
    with pytest.raises(
        ConfigError, match=r"^optimizer: needs a name, .* got SGD \( Param.*$"
    ) as e:
        make({"optimizer": optimizer})
    assert len(str(e.value).splitlines()) == 1


def test_all_mistakes_of_a_file_are_named_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "task: cifar10\n\n\ntrails: 5\nschedules:\n  StepLR:\n    gamma: [0.9, 0.1]\n\n"
        "pruner: asga\n",
    )
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).splitlines() == [
        f"{path}: 3 mistakes",
        "  line 4  trails: unknown key — did you mean trials?",
        "  line 7  schedules.StepLR.gamma: low 0.9 is above high 0.1",
        "  line 9  pruner: 'asga' — did you mean asha? — one of " + ", ".join(PRUNERS),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": "0"}, r"trials: must be from 1 to 1,000,000, got 0"),
        ({"trials": 1.5}, r"trials: needs a whole number, got 1\.5"),
        ({"trials": True}, r"trials: needs a whole number, got True"),
        ({"epochs": "many"}, r"epochs: needs a whole number, got 'many'"),
        ({"lr": "0.1"}, r"lr: needs LOW,HIGH or auto, got '0\.1'"),
        ({"lr": "1,0.1"}, r"lr: low 1 is above high 0\.1"),
        ({"lr": [0, 1]}, r"lr: low must be above 0, got 0"),
        ({"lr": "nan,1"}, r"lr: needs a number, got 'nan'"),
        ({"lr": [1, 10**400]}, r"lr: needs a number, got 10000"),
        ({"timeout": 10**400}, r"timeout: needs a time such as 90s, 15m or 2h, got 10000"),
        ({"timeout": "-5m"}, r"timeout: must be above 0"),
        ({"schedules": {"StepLR": {"gamma": [10**400, 1]}}}, r"gamma: needs finite numbers, got"),
        ({"schedules": {"StepLR": {"gamma": 0.1}, "steplr": {}}}, r"StepLR stands there twice"),
        ({"schedules": [{"StepLR": {"gamma": 1}}, "LinearLR"]}, r"schedules: a list holds names"),
        ({"schedules": "StepLRR"}, r"unknown schedule family 'StepLRR' — did you mean StepLR\?"),
        ({"schedules": {"StepLR", "LinearLR"}}, r"schedules: needs A,B,\.\.\., a list, or family"),
        ({"schedules": []}, r"schedules: needs at least one family"),
        ({"baselines": 3}, r"baselines: needs true, false, or name: \{family: \.\.\.,"),
        ({"baselines": {}}, r"baselines: has no recipe; write false for none"),
        ({"baselines": {"a": 1}}, r"baselines\.a: needs \{family: .*\} or nothing, got 1"),
        ({"baselines": {"StepLRR": None}}, r"baselines\.StepLRR: .* did you mean StepLR\?"),
        ({"baselines": {"mine": {"lr": 0.1}}}, r"baselines\.mine: .*or give \{family: StepLR"),
        ({"baselines": {"#3": {"family": "StepLR"}}}, r"name must not start with #, got '#3'"),
        (
            {"baselines": {"StepLR": {"step_size": 3, "gamma": 2}}},
            r"baselines\.StepLR\.gamma: must be above 0 and at most 1, got 2",
        ),
        (
            {"baselines": {"a": {"family": "StepLR", "lr": -1, "step_size": 3, "gamma": 1}}},
            r"baselines\.a\.lr: must be a finite number above 0",
        ),
        ({"optimizer": {"name": "sgd", "lr": 1}}, r"optimizer: lr is what is searched"),
        ({"optimizer": 3}, r"optimizer: needs a name"),
        ({"optimizer": {"sgd": {"momentum": 0.9}}}, r"optimizer: needs a name, or \{name: sgd"),
        ({"workers": "-1"}, r"workers: needs auto or a number"),
        ({"warmup": "perhaps"}, r"warmup: needs true or false"),
        ({"name": "a\nb"}, r"name: has a control character"),
        ({"name": "a\x9bb"}, r"name: has a control character"),
        ({"name": "a\udcffb"}, r"name: has a character that no database can keep: 'a.udcffb'"),
        ({"storage": ""}, r"storage: needs a text"),
    ],
)
def test_bad_value_is_one_clear_line(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(values)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"trials": "50"}, "trials", 50),
        ({"seed": np.int64(3)}, "seed", 3),
        ({"lr": "1e-3,1"}, "lr", (0.001, 1.0)),
        ({"lr": ["1e-3", 1]}, "lr", (0.001, 1.0)),
        ({"lr": "auto"}, "lr", "auto"),
        ({"timeout": "15m"}, "timeout", 900.0),
        ({"schedules": "steplr, OneCycleLR"}, "schedules", {"StepLR": {}, "OneCycleLR": {}}),
        ({"baselines": "no"}, "baselines", False),
        (
            {"baselines": {"mine": {"family": "steplr", "step_size": 0.5, "gamma": 0.1}}},
            "baselines",
            {"mine": {"family": "StepLR", "step_size": 0.5, "gamma": 0.1}},
        ),
        (
            {"baselines": {"StepLR": None}},
            "baselines",
            {"StepLR": {"family": "StepLR", "step_size": 1 / 3, "gamma": 0.1}},
        ),
        ({"optimizer": "adamw"}, "optimizer", {"name": "adamw"}),
        (
            {"optimizer": {"name": "adam", "eps": "1e-6", "betas": ["9e-1", 0.99]}},
            "optimizer",
            {"name": "adam", "eps": 1e-6, "betas": [0.9, 0.99]},
        ),
        ({"pruner": None}, "pruner", "none"),
        ({"fuse": False}, "fuse", "off"),
        ({"fuse": 8}, "fuse", "8"),
        ({"warmup": "no"}, "warmup", False),
        ({"model": None}, "model", None),
    ],
)
def test_values_of_a_shell_and_of_yaml_are_understood(
    values: dict[str, object], key: str, expected: object
) -> None:
    assert getattr(make(values), key) == expected


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "trials: 10\nepochs: 5\noptimizer: {name: sgd, momentum: 0.8}\n")
    config = load(path, {"trials": "20", "optimizer": {"nesterov": False}})
    assert (config.trials, config.epochs) == (20, 5)
    assert config.optimizer == {"name": "sgd", "momentum": 0.8, "nesterov": False}
    nothing = load(write(tmp_path, "optimizer:\n"), {"optimizer": {"momentum": 0.5}})
    assert nothing.optimizer == {"momentum": 0.5}


def test_numbers_of_a_file_are_what_they_are_in_a_shell(tmp_path: Path) -> None:
    text = "trials: 010\nname: 007\nbatch_size: 1_000\nlr: [1e-3, 010]\n"
    config = load(write(tmp_path, text), {})
    assert (config.trials, config.name, config.batch_size) == (10, "007", 1000)
    assert config.lr == (0.001, 10.0)
    assert load(write(tmp_path, "name: 2026-01-01"), {}).name == "2026-01-01"
    with pytest.raises(ConfigError, match=r"line 1  timeout: needs a time such as .*got '1:30'"):
        load(write(tmp_path, "timeout: 1:30"), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1  not valid YAML"),
        ("- 1\n- 2\n", "a study file is a mapping"),
        ("task: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("task: &a digits\nname: *a\n", "aliases"),
        ("x: 1\n" * 100_000, "larger than 256 KiB"),
        ("{" * 5000, "not valid YAML"),
    ],
)
def test_file_that_is_no_study_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(write(tmp_path, text), {})


def test_two_numbers_are_a_range_or_named_as_choices() -> None:
    """A list of two is a range, from low to high; of {choices: ...} each is a value."""
    given = {"gamma": {"choices": [0.5, 0.1]}, "step_size": [1, 2]}
    config = make({"schedules": {"StepLR": given}})
    assert config.schedules == {"StepLR": given}
    overrides = {f"StepLR.{name}": value for name, value in given.items()}
    space = Space(("StepLR",), epochs=8, lr=(0.01, 1.0), overrides=overrides)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()).params for _ in range(20)]
    assert {params["gamma"] for params in drawn} == {0.5, 0.1}
    assert {params["step_size"] for params in drawn} == {1, 2}


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml: cannot be read \(No such file"):
        load(tmp_path / "nothing.yaml", {})


def test_configuration_survives_json_and_yaml(tmp_path: Path) -> None:
    raw = {"schedules": {"StepLR": {"gamma": [0.1, 0.5]}}, "lr": "0.01,1", "name": "é/.."}
    config = make(raw | {"baselines": {"OneCycleLR": None, "low": {"family": "ConstantLR"}}})
    plain = config.to_dict()
    assert make(json.loads(json.dumps(plain))) == make(plain)
    path = write(tmp_path, yaml.safe_dump(plain, allow_unicode=True))
    assert load(path, {}).identity() == config.identity()


def test_changed_search_space_is_shown_and_other_settings_are_free() -> None:
    stored = json.loads(json.dumps(make({"epochs": 20}).identity()))
    assert difference(stored, make({"epochs": 30}).identity()) == ["epochs 20, now 30"]
    assert difference(stored, make({"epochs": 20, "trials": 7, "device": "cpu"}).identity()) == []


def test_a_setting_that_a_study_or_this_run_leaves_out_is_told_so() -> None:
    stored = json.loads(json.dumps(make({"epochs": 20}).identity()))
    now_without = difference(stored, make({}).identity())
    assert now_without == ["epochs 20, now left out (the default of the task)"]
    assert difference(stored, make({"epochs": 20, "lr": "0.1,1"}).identity()) == [
        "lr left out (the default of the task), now [0.1, 1.0]"
    ]
    some = {"StepLR": {"step_size": [2, 3], "gamma": 0.1}, "LinearLR": {}}
    few = make({"epochs": 20, "schedules": some, "optimizer": {"name": "SGD", "momentum": 0.8}})
    assert difference(stored, few.identity()) == [
        "schedules left out (all families), now StepLR (step_size [2, 3], gamma 0.1), LinearLR",
        "optimizer left out (the default of the task), now name SGD, momentum 0.8",
    ]


def test_schema_lists_every_setting() -> None:
    schema = json_schema()
    assert set(schema["properties"]) == set(SETTINGS)
    assert all(row["description"] for row in schema["properties"].values())


def test_reading_a_configuration_imports_no_torch_and_no_optuna() -> None:
    code = (
        "import sys, lrsearch, lrsearch.cli, lrsearch.config\n"
        "lrsearch.config.make({'schedules': 'StepLR'})\n"
        "print([m for m in ('torch', 'optuna', 'plotly', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(list(SETTINGS)) | st.text(max_size=8), PLAIN, max_size=5))
def test_whatever_is_in_a_file_is_accepted_or_refused_in_words(values: dict[str, object]) -> None:
    try:
        made = make(values)
    except ConfigError as error:
        said = error.mistakes
    else:
        said = [made.study_name]
    assert said
    assert all(said)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60) | st.text(alphabet="{}[]:,-&*!|> \n\ta1'\"#%@", max_size=60))
def test_any_bytes_as_a_study_file_end_in_words(tmp_path_factory: object, raw: object) -> None:
    folder = tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    path = folder / "fuzz.yaml"
    path.write_bytes(raw if isinstance(raw, bytes) else str(raw).encode())
    try:
        said = load(path, {}).study_name
    except LrsearchError as error:
        said = str(error)
    assert said


def test_help_tells_the_default_of_every_setting_that_has_one() -> None:
    shown = {True: "yes", False: "no"}
    for key, setting in SETTINGS.items():
        default = getattr(StudyConfig, key, None)
        if isinstance(default, bool):
            default = shown[default]
        if default is not None:
            assert f"(default: {default}" in setting.help, key
    bare = {key for key, setting in SETTINGS.items() if "(default: " not in setting.help}
    assert bare == {"timeout", "log"}
