"""Presets: a whole recipe as one YAML file, from the sizes of every part to the minutes of every run.

::

    preset = load("tiny", ["codec.recipe.steps=20"])
    preset.codec.model                      # a CodecConfig
    preset.spec("coarse")                   # the StageSpec of a stage, fitted to codec and tokenizer

A file of one's own may begin with ``base: default`` and name only what is different. Everything is checked: a key that
is not known, a value of the wrong type and sizes that do not fit are errors that say where they stand.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from audiolm.codec import CodecConfig
from audiolm.errors import ConfigError
from audiolm.parts import PAPER_SAMPLING, STAGES
from audiolm.sampler import Sampling
from audiolm.stage import Pattern, StageSpec
from audiolm.tokenizer import TokenizerConfig
from audiolm.train.codec import CodecRecipe
from audiolm.train.prepare import PrepareRecipe
from audiolm.train.semantic import SemanticRecipe
from audiolm.train.settings import fill, put, read_yaml
from audiolm.train.stages import StageRecipe

# In a wheel the presets lie inside the package, in a checkout in configs/models.
FOLDERS = (Path(__file__).parents[1] / "presets", Path(__file__).parents[2] / "configs" / "models")
SEMANTIC_RATE = 25
T = TypeVar("T")
Stored = Literal["fp16", "int8"]


@dataclass(frozen=True)
class CodecPlan:
    """The codec and how it is trained."""

    model: CodecConfig = field(default_factory=CodecConfig)
    recipe: CodecRecipe = field(default_factory=CodecRecipe)


@dataclass(frozen=True)
class SweepPlan:
    """Which layers and numbers of clusters are tried (:mod:`audiolm.train.sweep`); none: those of the model.

    Attributes:
        layers: 0 is the projection.
        clusters: all of them are tried on the best layer, the first on every layer.
        ticks: embeddings that the clusters are fitted to.
        music: choose by what tokens tell of notes.
        align: choose by phones; English texts in the manifest's column ``text`` are aligned for it.
    """

    layers: tuple[int, ...] = ()
    clusters: tuple[int, ...] = ()
    ticks: int = 60000
    music: bool = False
    align: bool = False


@dataclass(frozen=True)
class SemanticPlan:
    """The semantic tokenizer, how its encoder is trained and how layer and clusters are chosen."""

    model: TokenizerConfig = field(default_factory=TokenizerConfig)
    recipe: SemanticRecipe = field(default_factory=SemanticRecipe)
    sweep: SweepPlan = field(default_factory=SweepPlan)


@dataclass(frozen=True)
class StageSizes:
    """The sizes of a stage that are free, as in :class:`~audiolm.stage.StageSpec`; the others follow from the ears."""

    window: int = 500
    ahead: int = 0
    layers: int = 4
    width: int = 256
    heads: int = 4
    feed_forward: int = 4
    sinks: int = 4
    depth_layers: int = 2
    depth_width: int = 256
    depth_heads: int = 4
    pattern: Pattern = "depth"


@dataclass(frozen=True)
class StagePlan:
    """A stage and how it is trained."""

    model: StageSizes = field(default_factory=StageSizes)
    recipe: StageRecipe = field(default_factory=StageRecipe)


@dataclass(frozen=True)
class StagePlans:
    """The three stages."""

    semantic: StagePlan = field(default_factory=StagePlan)
    coarse: StagePlan = field(default_factory=lambda: StagePlan(StageSizes(ahead=2)))
    fine: StagePlan = field(default_factory=StagePlan)


@dataclass(frozen=True)
class Dtypes:
    """How the weights of each part are stored."""

    codec: Stored = "fp16"
    tokenizer: Stored = "int8"
    semantic: Stored = "int8"
    coarse: Stored = "int8"
    fine: Stored = "int8"


@dataclass(frozen=True)
class StageSampling:
    """How each stage draws its tokens by default."""

    semantic: Sampling = PAPER_SAMPLING["semantic"]
    coarse: Sampling = PAPER_SAMPLING["coarse"]
    fine: Sampling = PAPER_SAMPLING["fine"]


@dataclass(frozen=True)
class ExportPlan:
    """What the bundle says and how it is stored."""

    dtypes: Dtypes = field(default_factory=Dtypes)
    sampling: StageSampling = field(default_factory=StageSampling)


@dataclass(frozen=True)
class Preset:
    """A whole recipe.

    Raises:
        ConfigError: its parts do not fit each other.
    """

    name: str = "default"
    about: str = ""
    prepare: PrepareRecipe = field(default_factory=PrepareRecipe)
    codec: CodecPlan = field(default_factory=CodecPlan)
    semantic: SemanticPlan = field(default_factory=SemanticPlan)
    stages: StagePlans = field(default_factory=StagePlans)
    export: ExportPlan = field(default_factory=ExportPlan)

    def __post_init__(self) -> None:
        for name in STAGES:
            self.spec(name)
            if name != "coarse" and self.plan(name).model.ahead:
                raise ConfigError(f"stages.{name}.model.ahead must be 0: only the coarse stage looks ahead")

    def plan(self, stage: str) -> StagePlan:
        """The stage of this name."""
        return getattr(self.stages, stage)  # type: ignore[no-any-return]

    def spec(self, stage: str, clusters: int | None = None) -> StageSpec:
        """The spec of a stage behind these ears; ``clusters`` when the sweep chose another number."""
        codec, clusters = self.codec.model, clusters or self.semantic.model.clusters
        rate, coarse = round(codec.frame_rate), codec.coarse_levels
        fixed: dict[str, tuple[int, int, int, int, int, int]] = {
            "semantic": (0, SEMANTIC_RATE, 1, clusters, 0, 0),
            "coarse": (1, rate, coarse, codec.cardinality, 1, clusters),
            "fine": (2, rate, codec.levels - coarse, codec.cardinality, coarse, codec.cardinality),
        }
        return StageSpec(stage, *fixed[stage], **dataclasses.asdict(self.plan(stage).model))

    @property
    def minutes(self) -> dict[str, float]:
        """Minutes of each training run by name."""
        runs = {"codec": self.codec.recipe.minutes, "encoder": self.semantic.recipe.minutes}
        return runs | {name: self.plan(name).recipe.minutes for name in STAGES}

    def within(self, minutes: float) -> "Preset":
        """The same with ``minutes`` of training in all, divided as they are here.

        Raises:
            ConfigError: that is no positive number.
        """
        if not 0 < minutes < float("inf"):
            raise ConfigError(f"minutes must be a positive number, got {minutes}", minutes=minutes)
        share = minutes / sum(self.minutes.values())

        def less(plan: T) -> T:
            recipe = plan.recipe  # type: ignore[attr-defined]
            recipe = dataclasses.replace(recipe, minutes=recipe.minutes * share)
            return dataclasses.replace(plan, recipe=recipe)  # type: ignore[type-var]

        stages = StagePlans(**{name: less(self.plan(name)) for name in STAGES})
        return dataclasses.replace(self, codec=less(self.codec), semantic=less(self.semantic), stages=stages)


def shipped() -> dict[str, Path]:
    """The presets that ship, by name."""
    return {path.stem: path for folder in reversed(FOLDERS) for path in sorted(folder.glob("*.yaml"))}


def load(name_or_file: str | Path, sets: Iterable[str] = ()) -> Preset:
    """A preset by name or from a YAML file, changed by ``PATH=VALUE`` settings.

    Raises:
        ConfigError: there is none, or it cannot be used; the message says where it is wrong.
    """
    where = f"preset {str(name_or_file)!r}"
    values = _inherited(name_or_file)
    for item in sets:
        put(values, item)
    try:
        return fill(Preset, values, "")
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", **error.data) from error


def _inherited(name_or_file: str | Path) -> dict[str, Any]:
    path = _find(name_or_file)
    values = {"name": path.stem} | read_yaml(path)
    base = values.pop("base", None)
    if base is None:
        return values
    if base not in shipped():
        raise ConfigError(f"{path}: base is {base!r}; expected one of {', '.join(sorted(shipped()))}")
    if shipped()[base] == path:
        raise ConfigError(f"{path} is its own base; name another preset, or none")
    return _merged(_inherited(base), values)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {key: _merged(under[key], over[key]) for key in under.keys() & over.keys() if _nested(under[key], over[key])}
    return {**under, **over, **both}


def _nested(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _find(name_or_file: str | Path) -> Path:
    known = shipped()
    if str(name_or_file) in known:
        return known[str(name_or_file)]
    path = Path(name_or_file)
    if path.is_file():
        return path
    near = difflib.get_close_matches(str(name_or_file), known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(
        f"there is no preset {str(name_or_file)!r}; shipped ones: {', '.join(sorted(known)) or 'none'}; "
        f"or give a YAML file{hint}",
        preset=str(name_or_file),
    )
