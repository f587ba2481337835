"""What is installed for each peer, pinned. What is left out is what the measurement never uses."""

from benchmarks.peers.environments import Environment

_TORCHAUDIO = "torchaudio==2.11.0"

TRANSFORMERS = Environment("transformers", ("transformers==5.23.0",))
MOSHI = Environment(
    "moshi",
    ("numpy<2.3", "safetensors<0.8", "huggingface-hub<1", "einops<0.9", "sentencepiece<0.3", "tqdm"),
    ("moshi==0.2.13",),  # asks for torch < 2.10, bitsandbytes and a sound card; none of them is used here
)
PIPECAT = Environment("pipecat", ("pipecat-ai==1.14.0",), torch=False)
AUDIOLM_PYTORCH = Environment(
    "audiolm-pytorch",
    (
        "accelerate", "beartype", "einops", "ema-pytorch", "gateloop-transformer", "hyper-connections==0.1.15",
        "joblib", "local-attention", "pytorch-warmup", "scikit-learn", "sentencepiece", "transformers==5.23.0", "tqdm",
        "vector-quantize-pytorch==1.21.2",
    ),
    ("audiolm-pytorch==2.4.0", "encodec==0.1.1", _TORCHAUDIO),  # fairseq does not build; wandb is for training
)  # fmt: skip
AUDIOCRAFT = Environment(
    "audiocraft",
    ("numpy", "einops", "julius", "omegaconf", "huggingface-hub", "tqdm"),
    ("audiocraft==1.3.0", _TORCHAUDIO),  # asks for torch 2.1.0, which no longer installs beside these
)
