"""What tokens and embeddings know: the speaker (they should not), notes and their onsets (they should).

Probes are as simple as can be, so that they find what lies open: the mean of each cluster, and ridge regression.
Everything is a function of tensors; rows are ticks of 40 ms.
"""

import torch
from torch import Tensor

WINDOW, LOW, HIGH, CLASSES = 4096, 80.0, 2000.0, 12
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # of ridge regression, times the mean square of a row


def chroma(audio: Tensor, rate: int = 16000, hop: int = 640) -> Tensor:
    """Share of each pitch class, A first: ``[B, T] -> [B, T / hop + 1, 12]``, frames around the tick's beginning.

    Magnitudes between 80 and 2000 Hz by nearest pitch class; near zero in silence.
    """
    padded = torch.nn.functional.pad(audio, (WINDOW // 2, WINDOW // 2))
    window = torch.hann_window(WINDOW, device=audio.device)
    spectrum = torch.stft(padded, WINDOW, hop, window=window, return_complex=True, center=False)
    frequency = torch.arange(WINDOW // 2 + 1) * rate / WINDOW
    used = torch.nonzero((frequency > LOW) & (frequency < HIGH))[:, 0]
    fold = torch.zeros(WINDOW // 2 + 1, CLASSES, device=audio.device)
    fold[used, (12 * torch.log2(frequency[used] / 440)).round().long() % CLASSES] = 1
    folded = (spectrum.abs().square().transpose(1, 2) @ fold).sqrt()
    return folded / (folded.sum(-1, keepdim=True) + 1e-4)


def onset_strength(mel: Tensor, frames_per_tick: int = 4) -> Tensor:
    """Largest mean rise from a log-mel frame to the next in each tick: ``[B, frames, mels] -> [B, ticks, 1]``."""
    rise = (mel - torch.nn.functional.pad(mel, (0, 0, 1, 0))[:, :-1]).clamp_min(0).mean(-1)
    rise[:, 0] = 0
    return rise.reshape(len(mel), -1, frames_per_tick).amax(-1, keepdim=True)


def r2(truth: Tensor, guess: Tensor) -> float:
    """Share of the variance of ``truth`` ``[N, dim]`` that ``guess`` explains; below zero is worse than the mean."""
    return 1 - float((truth - guess).square().sum() / (truth - truth.mean(0)).square().sum())


def explained_by_clusters(clusters: Tensor, target: Tensor, held: Tensor, truth: Tensor) -> float:
    """R2 on held-out rows of the mean ``target`` of each cluster; a cluster seen but twice counts half.

    Args:
        clusters: int64 ``[N]``, of the rows that the means are learned from.
        target: ``[N, dim]``, of the same rows.
        held: int64 ``[M]``, clusters of the held-out rows.
        truth: ``[M, dim]``, what is to be guessed.
    """
    size = int(max(clusters.max(), held.max())) + 1
    sums = torch.zeros(size, target.shape[1]).index_add_(0, clusters, target)
    counts = torch.bincount(clusters, minlength=size).float()[:, None]
    return r2(truth, ((sums + 2 * target.mean(0)) / (counts + 2))[held])


def ridge(x: Tensor, y: Tensor, strength: float = 1e-3) -> Tensor:
    """Weights ``[dim + 1, out]``, bias last, of ``x`` ``[N, dim] -> y`` ``[N, out]``; ``strength`` times N is added."""
    one = torch.cat((x, torch.ones(len(x), 1)), 1).double()
    gram = one.T @ one + strength * len(x) * torch.eye(one.shape[1], dtype=torch.double)
    weights: Tensor = torch.linalg.solve(gram, one.T @ y.double())
    return weights.float()


def apply_ridge(weights: Tensor, x: Tensor) -> Tensor:
    """What :func:`ridge` guesses for ``x``."""
    return x @ weights[:-1] + weights[-1]


def linear_r2(x: Tensor, y: Tensor, held: Tensor, truth: Tensor) -> float:
    """R2 on held-out rows of a linear map of whitened ``x``."""
    mean, spread = x.mean(0), x.std(0) + 1e-6
    return r2(truth, apply_ridge(ridge((x - mean) / spread, y), (held - mean) / spread))


def bags(tokens: Tensor, vocabulary: int) -> Tensor:
    """Square roots of the shares of tokens: ``[ticks]`` or ``[ticks, levels] -> [levels * vocabulary]``."""
    levels = tokens.reshape(len(tokens), -1)
    counts = [torch.bincount(level, minlength=vocabulary).float() for level in levels.T]
    return torch.cat([(count / count.sum().clamp_min(1)).sqrt() for count in counts])


def probe_accuracy(x: Tensor, labels: Tensor, held: Tensor, truth: Tensor) -> float:
    """Share of the held-out rows whose class a linear probe names, learned from ``x`` ``[N, dim]``, int64 ``labels``.

    One-against-all ridge regression, in the space of the rows since there are fewer of them than dimensions; at the
    best of a few strengths, since what is compared may need different ones.
    """
    wanted = torch.nn.functional.one_hot(labels, int(labels.max()) + 1).double()
    rows, others = ((each - x.mean(0)).double() for each in (x, held))
    gram = rows @ rows.T
    scale = float(gram.diagonal().mean()) + 1e-9

    def accuracy(strength: float) -> float:
        weights = torch.linalg.solve(gram + strength * scale * torch.eye(len(x)), wanted - wanted.mean(0))
        return float(((others @ rows.T @ weights + wanted.mean(0)).argmax(1) == truth).float().mean())

    return max(map(accuracy, STRENGTHS))


def usage(tokens: Tensor, vocabulary: int) -> dict[str, float]:
    """Of a row of tokens ``[ticks]``: unigram entropy in nats, its perplexity, and the share of repeats."""
    share = torch.bincount(tokens, minlength=vocabulary).double() / len(tokens)
    entropy = -float((share * share.clamp_min(1e-12).log()).sum())
    repeats = float((tokens[1:] == tokens[:-1]).float().mean()) if len(tokens) > 1 else 0.0
    return {"entropy": entropy, "perplexity": float(torch.tensor(entropy).exp()), "repeats": repeats}
