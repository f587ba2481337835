"""The parts of a model, together: codec, tokenizer and three stages, with the numbers that tie them to one clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from audiolm.codec import SoundStream
from audiolm.errors import ConfigError
from audiolm.sampler import Sampling
from audiolm.stage import Stage
from audiolm.streaming import StreamingModule
from audiolm.tokenizer import SemanticTokenizer

STAGES = ("semantic", "coarse", "fine")
# The paper's temperatures (AudioLM, section IV-B).
PAPER_SAMPLING = {"semantic": Sampling(0.6), "coarse": Sampling(0.8), "fine": Sampling(0.6)}


@dataclass
class Parts:
    """A whole model.

    Attributes:
        fingerprint: says the same of the same weights; empty when nobody knows.

    Raises:
        ConfigError: the parts do not fit each other.
    """

    codec: SoundStream
    tokenizer: SemanticTokenizer
    stages: Mapping[str, Stage]
    sampling: Mapping[str, Sampling] = field(default_factory=lambda: dict(PAPER_SAMPLING))
    name: str = "unnamed"
    fingerprint: str = ""

    def __post_init__(self) -> None:
        config = self.codec.config
        missing = [name for name in STAGES if name not in self.stages]
        if missing:
            raise ConfigError(f"a model needs the stages {', '.join(STAGES)}; {', '.join(missing)} not given")
        semantic, coarse, fine = (self.stages[name].spec for name in STAGES)
        self._fit(
            "semantic vocabulary", semantic.cardinality, "the tokenizer's clusters", self.tokenizer.config.clusters
        )
        self._fit("coarse conditioning", coarse.cond_cardinality, "the semantic vocabulary", semantic.cardinality)
        self._fit("coarse levels", coarse.levels, "the codec's coarse levels", config.coarse_levels)
        self._fit("fine conditioning levels", fine.cond_levels, "the coarse levels", coarse.levels)
        self._fit("coarse and fine levels", coarse.levels + fine.levels, "the codec's levels", config.levels)
        self._fit("coarse codes", coarse.cardinality, "the codec's codes", config.cardinality)
        self._fit("fine codes", fine.cardinality, "the codec's codes", config.cardinality)
        self._fit("semantic conditioning levels", semantic.cond_levels, "what it may read", 0)
        self._fit("coarse conditioning levels", coarse.cond_levels, "what the semantic stage gives", semantic.levels)
        self._fit("fine conditioning", fine.cond_cardinality, "the codec's codes", config.cardinality)
        self._fit("the fine stage's look-ahead", fine.ahead, "what the coarse stage offers", 0)
        self._fit("samples left over from a tick", self.tick % config.hop, "what must be left over", 0)
        for spec in (coarse, fine):
            self._fit(f"{spec.name} rate", spec.rate, "the codec's frame rate", config.frame_rate)
        self._fit("semantic rate", semantic.rate, "the tokenizer's rate", self.tokenizer.rate_out)
        self._fit("noise streams", len({semantic.index, coarse.index, fine.index}), "the number of stages", len(STAGES))
        for name in STAGES:
            if name not in self.sampling:
                raise ConfigError(f"a model needs sampling settings for the stage {name!r}")
        for part in (self.codec, self.tokenizer, *self.stages.values()):
            for_inference(part)

    @staticmethod
    def _fit(what: str, got: float, whose: str, wanted: float) -> None:
        if got != wanted:
            raise ConfigError(f"{what} is {got}, but {whose} is {wanted}; the parts are of different models")

    @property
    def names(self) -> tuple[str, ...]:
        """Every part that has a state."""
        return ("encoder", "tokenizer", "decoder", *STAGES)

    def module(self, name: str) -> StreamingModule:
        """The encoder, tokenizer or decoder by name (stages are in :attr:`stages`)."""
        modules: dict[str, StreamingModule] = {
            "encoder": self.codec.encoder,
            "tokenizer": self.tokenizer,
            "decoder": self.codec.decoder,
        }
        return modules[name]

    @property
    def tick(self) -> int:
        """Samples in a tick."""
        return self.codec.encoder.frame_size

    @property
    def frames_per_tick(self) -> int:
        """Acoustic frames in a tick."""
        return self.tick // self.codec.config.hop

    @property
    def lookahead(self) -> int:
        """Ticks by which semantic tokens lag behind the sound."""
        return self.tokenizer.config.lookahead

    @property
    def ahead(self) -> int:
        """Semantic tokens that must exist beyond a tick before it can sound: L, and what delay patterns add."""
        coarse, fine = self.stages["coarse"].spec, self.stages["fine"].spec
        return coarse.ahead + -(-(coarse.span + fine.span) // self.frames_per_tick)


def for_inference(module: nn.Module) -> None:
    """Freeze a module and lay its matrices out for steps of batch 1; names, shapes and values stay.

    A vector times a matrix whose columns lie together adds up whole columns, which runs up to twice as fast here as
    the dot products along rows that ``nn.Linear`` takes by default (`benchmarks/decode_step.py`).
    """
    module.eval().requires_grad_(requires_grad=False)
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data = part.weight.data.t().contiguous().t()
