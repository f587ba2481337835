"""How much of pitch and loudness the clusters of each layer keep: the choice of layer for a music bundle.

    python scripts/layer_sweep.py ENCODER.safetensors TRAIN_CORPUS DEV_CORPUS

For every layer: k-means of 1024 in 64 whitened components on the training sound, and on held-out sound the share of
variance of chroma (12 pitch classes) and of loudness that the mean of each cluster explains.
"""

import sys

import torch
from safetensors.torch import load_file
from torch import Tensor

from audiolm.tokenizer import SemanticTokenizer, TokenizerConfig
from audiolm.train.data import Corpus, crops
from audiolm.train.kmeans import lloyd, nearest, principal

N_FFT, LOW, HIGH, CLUSTERS, COMPONENTS = 4096, 80.0, 2000.0, 1024, 64


def chroma(audio: Tensor) -> tuple[Tensor, Tensor]:
    """Chroma `[B, ticks, 12]` that sums to one, and log loudness `[B, ticks, 1]`."""
    padded = torch.nn.functional.pad(audio, (N_FFT // 2, N_FFT // 2))
    spectrum = torch.stft(padded, N_FFT, 640, window=torch.hann_window(N_FFT), return_complex=True, center=False)
    frequency = torch.arange(N_FFT // 2 + 1) * 16000 / N_FFT
    used = torch.nonzero((frequency > LOW) & (frequency < HIGH))[:, 0]
    pitch = (12 * torch.log2(frequency[used] / 440)).round().long() % 12
    fold = torch.zeros(N_FFT // 2 + 1, 12)
    fold[used, pitch] = 1
    folded = (spectrum.abs().square().transpose(1, 2) @ fold).sqrt()
    total = folded.sum(-1, keepdim=True)
    return folded / (total + 1e-4), (total + 1e-3).log()


@torch.inference_mode()
def collect(
    tokenizer: SemanticTokenizer, corpus: Corpus, batches: int, seed: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Embeddings by layer, chroma and loudness of random crops, a row a tick."""
    layers: list[list[Tensor]] = [[] for _ in range(tokenizer.config.layers + 1)]
    pitches, loudness = [], []
    source = crops([(corpus, 1.0)], 8 * 16000, 8, seed, gain_db=3.0)
    for _ in range(batches):
        audio = next(source)
        outputs = tokenizer.encoder(tokenizer.stack(tokenizer.features(audio)))
        pitch, loud = chroma(audio)
        ticks = outputs[0].shape[1]
        for kept, output in zip(layers, outputs, strict=True):
            kept.append(output.flatten(0, 1))
        pitches.append(pitch[:, :ticks].flatten(0, 1))
        loudness.append(loud[:, :ticks].flatten(0, 1))
    return [torch.cat(kept) for kept in layers], torch.cat(pitches), torch.cat(loudness)


def explained(train: Tensor, target: Tensor, dev: Tensor, truth: Tensor) -> float:
    """R2 on held-out rows of predicting `target` by the (smoothed) mean of each cluster."""
    sums = torch.zeros(CLUSTERS, target.shape[1]).index_add_(0, train, target)
    counts = torch.bincount(train, minlength=CLUSTERS).float()[:, None]
    means = (sums + 2 * target.mean(0)) / (counts + 2)
    return 1 - float((truth - means[dev]).square().sum() / (truth - truth.mean(0)).square().sum())


def main(encoder: str, train_folder: str, dev_folder: str) -> None:
    """Print a row a layer."""
    torch.set_num_threads(1)
    tokenizer = SemanticTokenizer(TokenizerConfig()).eval()
    tokenizer.encoder.load_state_dict(load_file(encoder))
    train, dev = (
        collect(tokenizer, Corpus.open(train_folder), 20, 0),
        collect(tokenizer, Corpus.open(dev_folder), 10, 1),
    )
    for layer, (x, y) in enumerate(zip(train[0], dev[0], strict=True)):
        mean, whitening = principal(x, COMPONENTS)
        a, b = (x - mean) @ whitening, (y - mean) @ whitening
        centroids = lloyd(a, CLUSTERS, 12, torch.Generator().manual_seed(0))
        seen, held = nearest(a, centroids), nearest(b, centroids)
        pitch, loud = (explained(seen, train[i], held, dev[i]) for i in (1, 2))
        print(f"layer {layer}: chroma R2 {pitch:.3f}, loudness R2 {loud:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
