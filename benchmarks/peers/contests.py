"""The contests: which peer, which of our pieces beside it, what is compared, and what is not the same."""

from benchmarks.peers import catalog
from benchmarks.peers.compare import Contest, Figure

_WORKERS = "benchmarks.peers.workers"
_STEP = [f"{_WORKERS}.ours", "step", "--engine", "{engine}"]
_CODEC = [f"{_WORKERS}.ours", "codec", "--engine", "{engine}"]
_GRAPH = [f"{_WORKERS}.ours_graph"]
FULL_SECONDS = 7.0
QUICK_SECONDS = (0.2, 0.4)

_STREAMING = (
    Figure("encode.over", "streaming encoder over its own batch cost", "x", 3.0, absolute=True, yardstick=False),
    Figure("decode.over", "streaming decoder over its own batch cost", "x", 3.0, absolute=True, yardstick=False),
    Figure("encode.stream", "streaming encoder, a second of sound"),
    Figure("decode.stream", "streaming decoder, a second of sound"),
)
_PACED = (
    Figure("hop", "graph: a hop, one frame at a time", "us", 2e-6, absolute=True, yardstick=False),
    Figure("many", "graph: a hop, eight frames under way", "us", yardstick=False),
    Figure("p50", "graph: 20 nodes, a frame every 40 ms, p50", "ms", yardstick=False),
    Figure("p99", "graph: 20 nodes, a frame every 40 ms, p99", "ms", 0.5e-3, absolute=True, yardstick=False),
)


def contests(*, full: bool = False) -> list[Contest]:
    """All of them; `full` lets audiolm-pytorch make the whole 7 s, which takes twenty minutes and more."""
    return [*_steps(), *_codecs(), *_graphs(), _continuation(full=full)]


def _steps() -> list[Contest]:
    return [
        Contest(
            "plain", "plain static-cache loop", None, [f"{_WORKERS}.plain"], _STEP, [Figure("step", "decode step")],
            "the floor and the yardstick itself, twice; ours has noise, ring, masks and the runner in it.",
        ),
        Contest(
            "llama", "transformers Llama.generate", catalog.TRANSFORMERS, [f"{_WORKERS}.transformers_lm", "llama"],
            _STEP, [Figure("step", "decode step", goal=0.9)],
            "gated feed-forward of the same number of weights, RMS norm, growing cache (its default), sampling.",
        ),
        Contest(
            "musicgen", "transformers MusicGen.generate", catalog.TRANSFORMERS,
            [f"{_WORKERS}.transformers_lm", "musicgen"], [*_STEP, "--levels", "8", "--pattern", "delay"],
            [Figure("step", "decode step, 8 codebooks in a delay pattern", goal=0.9)],
            "its decoder without text and guidance; sinusoidal positions, growing cache.",
        ),
        Contest(
            "audiocraft", "audiocraft StreamingTransformer", catalog.AUDIOCRAFT, [f"{_WORKERS}.audiocraft_step"],
            _STEP, [Figure("step", "decode step", goal=0.8)],
            "theirs is the Transformer alone; ours is a whole row with embedding, head and sampling. It installs "
            "without its pinned torch 2.1 and without xformers: only its modules are imported.",
        ),
        Contest(
            "moshi", "moshi LMGen", catalog.MOSHI, [f"{_WORKERS}.moshi_lm"], [*_STEP, "--levels", "8"],
            [Figure("step", "frame: temporal step and 8 depth steps (2 layers, 256)")],
            "gated feed-forward and RMS norm, depth weights of their own for each codebook, a text stream with a "
            "vocabulary of 1024; theirs makes a frame every 80 ms, ours every 20 ms.",
        ),
    ]  # fmt: skip


def _codecs() -> list[Contest]:
    return [
        Contest(
            "mimi-transformers", "transformers Mimi", catalog.TRANSFORMERS, [f"{_WORKERS}.transformers_mimi"], _CODEC,
            _STREAMING,
            "24 kHz, 80 ms a step, 8 of its codebooks, its published size; ours is the shipped `piano` codec at "
            "16 kHz, 40 ms a step, 12 codebooks. Its decoder's convolutions keep no state from call to call, so its "
            "stream is a cost and not a sound.", rounds=3,
        ),
        Contest(
            "mimi-moshi", "moshi Mimi", catalog.MOSHI, [f"{_WORKERS}.moshi_mimi"], _CODEC, _STREAMING,
            "as above; both of its halves stream.", rounds=3,
        ),
    ]  # fmt: skip


def _graphs() -> list[Contest]:
    return [
        Contest(
            "pipecat", "pipecat", catalog.PIPECAT, [f"{_WORKERS}.pipecat_graph"], _GRAPH, _PACED,
            "20 identity filters in a pipeline, observers and tracking off; ours is a lane of 20 empty nodes between a "
            "source and a sink, with the hand-over to the lane's thread and back in the paced figures.", rounds=4,
        ),
        Contest(
            "queues", "asyncio.Queue and a task a node", None, [f"{_WORKERS}.queues"], _GRAPH, _PACED,
            "the floor of a graph on one event loop: no checks, no sessions, no thread.", rounds=4,
        ),
    ]  # fmt: skip


def _continuation(*, full: bool) -> Contest:
    lengths = (FULL_SECONDS,) if full else QUICK_SECONDS
    goals = (0.01, 0.001) if full else (None, None)  # they are for 7 s
    theirs = [f"{_WORKERS}.audiolm_pytorch", "--seconds", *(f"{seconds:g}" for seconds in lengths)]
    return Contest(
        "audiolm-pytorch", "audiolm-pytorch", catalog.AUDIOLM_PYTORCH, theirs,
        [f"{_WORKERS}.ours", "continuation", "--engine", "{engine}"],
        [
            Figure("per_second", f"3 s, then {lengths[-1]:g} s: CPU time a second of sound", "s", goals[0]),
            Figure("first", "the prompt's end to the first sound", "s", goals[1]),
        ],
        "its defaults (`flash_attn=False`); its semantic tokens of the prompt are given (fairseq does not build), ours "
        f"are heard. Ours always makes 7 s, theirs {lengths[-1]:g} s, with three stages of 6 layers of 512 on both "
        "sides and 8 codebooks; in ours a small depth Transformer (2 layers, 256) makes the codebooks of a frame, in "
        "theirs each is a step of the large one. Nothing of theirs sounds before all of it is made.",
        rounds=1, limit_s=6 * 3600.0 if full else 1800.0,
    )  # fmt: skip
