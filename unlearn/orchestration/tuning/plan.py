"""Configs of a study: cells, settings, and the configs that its result is merged over."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unlearn.config.command_line import Arguments
from unlearn.config.composition import compose_config, enable_composition
from unlearn.config.help import explain_options, read_option_comments
from unlearn.config.identity import run_id_of_config, to_plain_config
from unlearn.config.validation import check_config
from unlearn.core.errors import ConfigError
from unlearn.orchestration.tuning.search_space import Constant, Range, parse_range

WITHOUT_TUNED = ("~method_defaults", "~method_defaults@method")
WITHOUT_OWN_TUNED = ("~method_defaults@method",)
STUDY_KEYS = {
    "corruption": "tune.corruptions",
    "discovery": "tune.discoveries",
    "seed": "tune.seed",
}
STUDY_KEYS |= {"discovery_rate": "tune.discoveries", "seeds": "tune.seed"}
SCORE_VERSION = 3
"""Increased whenever the same setting gets another score, since a study keeps its trials."""
DROPPED_KEYS = ("method_defaults", "tune", "force")


def override_target(override: str) -> str:
    """Return the key that an override sets, or the package of a group's override."""
    key = override.lstrip("+~").partition("=")[0].strip()
    return key.partition("@")[2] or key


@dataclass(frozen=True)
class ComposedConfig:
    """A composed config: its values, identity, choices of groups, and the method's ranges."""

    content: dict[str, Any]
    run_id: str
    choices: dict[str, str | None]
    search: tuple[str, ...]


class StudyPlan:
    """The configs of a study.

    Raises:
        ConfigError: If the command line sets a key of the study, or the method has no ranges.
    """

    def __init__(self, asked: Arguments, tune: Mapping[str, Any]) -> None:
        """Store the command line without the keys that the study sets."""
        for override in asked.overrides:
            key = override_target(override).partition(".")[0]
            if key in STUDY_KEYS:
                raise ConfigError(
                    f"a study defines its own tasks: set {STUDY_KEYS[key]}, got {override}"
                )
        self.command = list(asked.overrides)
        self.folders = asked.folders
        self.tune = tune
        self.asked = [
            o for o in asked.overrides if override_target(o).split(".")[0] not in DROPPED_KEYS
        ]

    def compose_with(self, *overrides: str) -> ComposedConfig:
        """Return the config of these overrides."""
        with enable_composition(self.folders):
            config = compose_config("unlearn", overrides, self.folders)
            content = to_plain_config(config)
            check_config(content, content)
            return ComposedConfig(
                content,
                run_id_of_config(config),
                dict(config.hydra.runtime.choices),
                tuple(config.method.get("search") or ()),
            )

    @cached_property
    def base_config(self) -> ComposedConfig:
        """The config of the command line, without tuned values."""
        return self.compose_with(*self.asked, *WITHOUT_TUNED)

    @cached_property
    def search_ranges(self) -> list[Range]:
        """The search space, without options that the command line sets."""
        if not self.base_config.search:
            name = self.base_config.choices["method"]
            raise ConfigError(
                f"method={name} has no search space: its YAML needs a list named search"
            )
        fixed = {override_target(o) for o in self.asked}
        found = [parse_range(entry) for entry in self.base_config.search]
        open_ = [r for r in found if override_target(r.key) not in fixed | self._unused_options]
        if all(isinstance(r, Constant) for r in open_):
            raise ConfigError(
                "tune.trials: the search space is empty, the command line sets every option"
            )
        return open_

    @property
    def _unused_options(self) -> set[str]:
        """Return options without effect: a network pre-trained with masks keeps their density."""
        density = self.base_config.content["pretraining"].get("density")
        return {"method.density"} if density else set()

    def cell_overrides(self, corruption: str, discovery: float) -> list[str]:
        """Return the overrides of a cell."""
        seed = f"seed={self.tune['seed']}"
        return [f"corruption={corruption}", f"discovery={discovery}", seed]

    def compose_cells(self) -> list[ComposedConfig]:
        """Return the configs of all cells, without a setting."""
        pairs = [(c, d) for c in self.tune["corruptions"] for d in self.tune["discoveries"]]
        return [
            self.compose_with(*self.asked, *WITHOUT_TUNED, *self.cell_overrides(c, d))
            for c, d in pairs
        ]

    def _first_cell(self) -> list[str]:
        return self.cell_overrides(self.tune["corruptions"][0], self.tune["discoveries"][0])

    def compose_setting(self, overrides: Sequence[str]) -> ComposedConfig:
        """Return the config of a setting on the first cell; methods do not depend on the cell."""
        return self.compose_with(*self.asked, *WITHOUT_TUNED, *self._first_cell(), *overrides)

    def lower_method_nodes(self) -> list[dict[str, Any]]:
        """Return the method's nodes that a tuned file may be merged over.

        That of another pre-training is merged over that of the standard one, if there is one.
        """
        usual = [
            o
            for o in self.asked
            if override_target(o).partition(".")[0] != "method" or "method=" in o
        ]
        below = (
            [WITHOUT_TUNED]
            if self.file_stem == self._standard_stem
            else [WITHOUT_TUNED, WITHOUT_OWN_TUNED]
        )
        return [self.compose_with(*usual, *b, *self._first_cell()).content["method"] for b in below]

    @property
    def _standard_stem(self) -> str:
        choices = self.base_config.choices
        return "_".join(str(choices[group]) for group in ("dataset", "model", "method"))

    @property
    def file_stem(self) -> str:
        """What the study is called: dataset, model, method, and an unusual pre-training."""
        return self._standard_stem + self._pretraining_suffix

    @property
    def option_path(self) -> Path:
        """The file of method defaults that ``conf/unlearn.yaml`` looks for, in a config folder."""
        choices = self.base_config.choices
        stem = f"{choices['dataset']}_{choices['model']}{self._pretraining_suffix}"
        return Path("method_defaults") / str(choices["method"]) / f"{stem}.yaml"

    @property
    def _pretraining_suffix(self) -> str:
        pretraining = self.base_config.choices["pretraining"]
        return "" if pretraining == "standard" else f"_{pretraining}"

    @property
    def study_folder(self) -> Path:
        """The study's folder, named by the hash of everything that affects a score."""
        keys = ("corruptions", "discoveries", "seed", "prune")
        who = [
            SCORE_VERSION,
            self.base_config.run_id,
            [str(r) for r in self.search_ranges],
            [self.tune[k] for k in keys],
        ]
        key = hashlib.sha256(json.dumps(who).encode()).hexdigest()[:12]
        return (
            Path(self.base_config.content["paths"]["tuning"])
            / "studies"
            / f"{self.file_stem}-{key}"
        )

    def describe_options(self, chosen: ComposedConfig) -> dict[str, str]:
        """Return the comments of the method's options, by dotted path in its node."""
        found = explain_options("unlearn", chosen.choices, self.folders)
        for key, option in chosen.choices.items():
            group, _, package = key.partition("@")
            if option is not None and package.startswith("method."):
                nested = read_option_comments(group, str(option), self.folders)
                found |= {f"{package}.{k}": v for k, v in nested.items()}
        return {k.removeprefix("method."): v for k, v in found.items() if k.startswith("method.")}
