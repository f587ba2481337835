"""Which layer and how many clusters: every pair is fitted on the training sound and measured on held-out sound.

For each layer k-means is made anew. Measured are

- with phones (:mod:`audiolm.eval.phones`): the ABX error of the layer's embeddings and of its tokens, within and across
  speakers;
- of music: how much of chroma and of onsets the tokens explain;
- always: how much the tokens explain of the features of the first tick that was not heard yet (*ahead*), how far a
  bigram of the tokens is below their unigram (*gain*, nats a token on held-out sound), their perplexity and repeats.

The layer is chosen by embeddings where there are phones, else by tokens; then the number of clusters by tokens. This
needs torch and numpy alone; only the plot needs matplotlib.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from audiolm.errors import InputError
from audiolm.eval import probe
from audiolm.eval.abx import Case, Item, abx_error, across_cases, triphones, within_cases
from audiolm.eval.clips import speaker_of
from audiolm.eval.phones import Phone
from audiolm.tokenizer import SemanticTokenizer
from audiolm.train.data import RATE, Corpus
from audiolm.train.semantic import embeddings, fit_clusters, mel_view

logger = logging.getLogger("audiolm.train")
TICKS_PER_SECOND, LEAST = 25.0, 50
MOST_MINUTES = 30.0  # of held-out sound


@dataclass(frozen=True)
class Row:
    """One pair of layer and clusters; measures are shares (errors and R2) or nats, None where there is nothing."""

    layer: int
    clusters: int
    embeddings_within: float | None = None
    embeddings_across: float | None = None
    tokens_within: float | None = None
    tokens_across: float | None = None
    chroma: float | None = None
    onsets: float | None = None
    ahead: float | None = None
    gain: float | None = None
    perplexity: float | None = None
    repeats: float | None = None

    @property
    def layer_score(self) -> float:
        """What the layer is chosen by; higher is better."""
        if self.embeddings_within is not None and self.embeddings_across is not None:
            return -(self.embeddings_within + self.embeddings_across) / 2
        return self.score

    @property
    def score(self) -> float:
        """What the number of clusters is chosen by; higher is better."""
        if self.tokens_within is not None and self.tokens_across is not None:
            return -(self.tokens_within + self.tokens_across) / 2
        if self.chroma is not None and self.onsets is not None:
            return (self.chroma + self.onsets) / 2
        return self.ahead or 0.0


@dataclass(frozen=True)
class Held:
    """Held-out clips (float32 ``[1, T]``, whole ticks) and what is measured on them."""

    clips: Mapping[str, Tensor]
    items: Sequence[Item] = ()
    within: Sequence[Case] = ()
    across: Sequence[Case] = ()
    music: bool = False

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        *,
        phones: Mapping[str, Sequence[Phone]] | None = None,
        speakers: Mapping[str, str] | None = None,
        music: bool = False,
    ) -> "Held":
        """Clips of ``corpus``: those with ``phones`` and others, half an hour at most.

        ``speakers`` gives the speaker of a clip; else its folder does, or a name as LibriSpeech's.

        Raises:
            InputError: phones are given, but of no clip of the corpus, or so few that nothing can be compared.
        """
        folders = {name: speaker_of(corpus, i) for i, name in enumerate(corpus.names)}
        known = {name: said for name, said in (phones or {}).items() if name in folders}
        items = triphones(known, lambda name: (speakers or folders)[name])
        within, across = within_cases(items), across_cases(items)
        if phones is not None and not (within and across):
            raise InputError(f"{len(items)} triphones of {len(known)} clips make no ABX case; align more clips")
        return cls(_clips(corpus, known), items, within, across, music)


def _clips(corpus: Corpus, first: Mapping[str, object]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    seconds = 0.0
    for i in sorted(range(len(corpus.names)), key=lambda i: corpus.names[i] not in first):
        name, length = corpus.names[i], int(corpus.index[i, 1]) // 640 * 640
        if name not in first and seconds > MOST_MINUTES * 60:
            break
        if name in first or length >= LEAST * 640:
            limit = length if name in first else min(length, 60 * RATE)
            found[name] = torch.from_numpy(corpus.clip(i)[:limit])[None]
            seconds += limit / RATE
    if not found:
        raise InputError(
            f"no held-out clip is {LEAST / TICKS_PER_SECOND:.0f} s long; give a dev corpus with longer clips"
        )
    return found


@dataclass(frozen=True)
class Sweep:
    """The table, and the pair that it chose."""

    rows: list[Row]
    layer: int
    clusters: int

    def save(self, folder: str | Path) -> None:
        """Write ``sweep.json`` and ``sweep.md`` into ``folder``."""
        chosen = {"layer": self.layer, "clusters": self.clusters, "rows": [asdict(row) for row in self.rows]}
        Path(folder, "sweep.json").write_text(json.dumps(chosen, indent=1) + "\n", encoding="utf8")
        Path(folder, "sweep.md").write_text(self.markdown(), encoding="utf8")

    def markdown(self) -> str:
        """The table; the pair that was chosen is in bold."""
        names = [each.name for each in fields(Row) if any(getattr(row, each.name) is not None for row in self.rows)]
        lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|---" * len(names) + "|"]
        for row in self.rows:
            mark = "**" if (row.layer, row.clusters) == (self.layer, self.clusters) else ""
            lines.append("| " + " | ".join(f"{mark}{_cell(getattr(row, name))}{mark}" for name in names) + " |")
        return "\n".join(lines) + "\n"

    def plot(self, path: str | Path) -> None:
        """Draw the measures over layers, one line a number of clusters (SVG or PNG by the name); needs matplotlib."""
        from matplotlib.figure import Figure

        shown = [name for name in PLOTTED if any(getattr(row, name) is not None for row in self.rows)]
        figure = Figure(figsize=(3.2 * len(shown), 2.8), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            for size in sorted({row.clusters for row in self.rows}):
                points = [(row.layer, getattr(row, name)) for row in self.rows if row.clusters == size]
                axes.plot(*zip(*sorted(points), strict=True), marker="o", label=str(size))
            axes.set_title(name.replace("_", " "))
            axes.set_xlabel("layer")
            axes.axvline(self.layer, color="grey", linewidth=0.5)
        axes.legend(title="clusters", fontsize="small")
        figure.savefig(path)


PLOTTED = (
    "embeddings_within",
    "embeddings_across",
    "tokens_within",
    "tokens_across",
    "chroma",
    "onsets",
    "ahead",
    "gain",
)


def _cell(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def sweep(
    tokenizer: SemanticTokenizer,
    train: Corpus,
    held: Held,
    layers: Sequence[int] = (),
    clusters: Sequence[int] = (),
    *,
    ticks: int = 60000,
    seed: int = 0,
) -> Sweep:
    """Try ``layers`` and numbers of ``clusters`` and leave the best pair in ``tokenizer``.

    Empty means those that the tokenizer has. All numbers of clusters are tried on the best layer, the first on all.

    Args:
        tokenizer: with a trained encoder; its clusters and its ``layer`` are replaced.
        train: what clusters are fitted to.
        held: what is measured on.
        layers: 0 is the projection.
        clusters: numbers of clusters.
        ticks: embeddings that clusters are fitted to.
        seed: of k-means and of the crops.

    Raises:
        InputError: fewer ticks than clusters, or no such layer.
    """
    config = tokenizer.config
    layers, sizes = layers or (config.layer,), clusters or (config.clusters,)
    if not all(0 <= layer <= config.layers for layer in layers):
        raise InputError(f"layers {list(layers)}: expected 0 to {config.layers}")

    def measured(layer: int, size: int) -> Row:
        return measure(tokenizer, held, fit(tokenizer, train, (layer, size), ticks, seed))

    rows = [measured(layer, sizes[0]) for layer in layers]
    best = max(rows, key=lambda row: row.layer_score).layer
    rows += [measured(best, size) for size in sizes[1:]]
    size = max((row for row in rows if row.layer == best), key=lambda row: row.score).clusters
    if (rows[-1].layer, rows[-1].clusters) != (best, size):
        fit(tokenizer, train, (best, size), ticks, seed)
    return Sweep(sorted(rows, key=lambda row: (row.layer, row.clusters)), best, size)


def fit(tokenizer: SemanticTokenizer, train: Corpus, pair: tuple[int, int], ticks: int, seed: int = 0) -> Tensor:
    """Give ``tokenizer`` clusters of a layer, ``pair`` being layer and number; the embeddings that were fitted to."""
    layer, size = pair
    config = tokenizer.config = replace(tokenizer.config, layer=layer, clusters=size)
    tokenizer.encoder.config = config
    tokenizer.centroids = tokenizer.centroids.new_zeros(size, config.components)
    x = embeddings(tokenizer, [(train, 1.0)], layer, ticks, seed)
    fit_clusters(tokenizer, x, seed=seed)
    return x


@torch.no_grad()
def measure(tokenizer: SemanticTokenizer, held: Held, x: Tensor) -> Row:
    """Measures of a tokenizer with clusters; ``x`` are the embeddings that they were fitted to."""
    embedded = {name: tokenizer.embed(audio)[0] for name, audio in held.clips.items()}
    tokens = {name: tokenizer.assign_clusters(y) for name, y in embedded.items()}
    values: dict[str, Any] = {
        **_abx(tokenizer, held, embedded, tokens),
        **_known(tokenizer, held, tokens),
        **_order(tokens, tokenizer.assign_clusters(x), tokenizer.config.clusters),
    }
    row = Row(tokenizer.config.layer, tokenizer.config.clusters, **values)
    said = {name: round(value, 3) for name, value in asdict(row).items() if value is not None}
    logger.info("sweep: %s", ", ".join(f"{name} {value}" for name, value in said.items()))
    return row


def _abx(
    tokenizer: SemanticTokenizer, held: Held, embedded: Mapping[str, Tensor], tokens: Mapping[str, Tensor]
) -> dict[str, float]:
    """ABX errors of the embeddings (without their mean) and of the centroids that stand for the tokens."""
    if not held.items:
        return {}
    clips = {item.clip for item in held.items}
    sounds = {name: (embedded[name] - tokenizer.mean).numpy() for name in clips}
    codes = {name: tokenizer.centroids[tokens[name]].numpy() for name in clips}
    return {
        f"{kind}_{where}": abx_error(features, TICKS_PER_SECOND, held.items, cases).error
        for kind, features in (("embeddings", sounds), ("tokens", codes))
        for where, cases in (("within", held.within), ("across", held.across))
    }


def _known(tokenizer: SemanticTokenizer, held: Held, tokens: Mapping[str, Tensor]) -> dict[str, float]:
    """What the tokens of every other clip explain of the clips between: the features ahead; of music its notes."""
    names = [list(held.clips)[start::2] for start in (0, 1)]
    if not names[1]:
        return {}
    wanted = {"ahead": {name: _ahead(tokenizer, held.clips[name]) for name in tokens}}
    if held.music:
        wanted["chroma"] = {name: probe.chroma(audio)[0] for name, audio in held.clips.items()}
        wanted["onsets"] = {name: probe.onset_strength(tokenizer.mel(audio))[0] for name, audio in held.clips.items()}
    return {kind: _explained(tokens, values, names) for kind, values in wanted.items()}


def _ahead(tokenizer: SemanticTokenizer, audio: Tensor) -> Tensor:
    """Features without level and colour, by tick, from the first tick that token 0 does not hear."""
    mel = tokenizer.mel(audio)
    ticks = mel.reshape(1, -1, tokenizer.frame_size // tokenizer.mel.hop, tokenizer.config.mels)
    return mel_view(ticks, ticks)[0, tokenizer.config.lookahead + 1 :]


def _explained(tokens: Mapping[str, Tensor], wanted: Mapping[str, Tensor], names: list[list[str]]) -> float:
    sides = []
    for part in names:
        lengths = [min(len(tokens[name]), len(wanted[name])) for name in part]
        cut = list(zip(part, lengths, strict=True))
        sides += [torch.cat([tokens[name][:n] for name, n in cut]), torch.cat([wanted[name][:n] for name, n in cut])]
    return probe.explained_by_clusters(sides[0], sides[1], sides[2], sides[3])


def _order(tokens: Mapping[str, Tensor], train: Tensor, clusters: int) -> dict[str, float]:
    """Perplexity and repeats, and what a bigram learned from training tokens gains on held-out ones."""
    joined = torch.cat(list(tokens.values()))
    used = probe.usage(joined, clusters)
    return {
        "perplexity": used["perplexity"],
        "repeats": used["repeats"],
        "gain": bigram_gain(train, joined, clusters),
    }


def bigram_gain(train: Tensor, held: Tensor, clusters: int, weight: float = 20.0) -> float:
    """Nats a token by which a bigram is below a unigram on ``held`` int64 ``[M]``, both learned from ``train`` ``[N]``.

    The bigram leans on the unigram with the weight of ``weight`` counts (a Dirichlet prior), the unigram on one count
    for each cluster.
    """
    unigram = torch.bincount(train, minlength=clusters).double() + 1
    unigram /= unigram.sum()
    pairs = torch.bincount(train[:-1] * clusters + train[1:], minlength=clusters**2).double()
    before = torch.bincount(train[:-1], minlength=clusters).double()
    alone = unigram[held[1:]]
    both = (pairs[held[:-1] * clusters + held[1:]] + weight * alone) / (before[held[:-1]] + weight)
    return float((both.log() - alone.log()).mean())
