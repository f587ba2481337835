"""What one GPU serves: sessions against latency, memory, time by part, and how far from what the chip allows.

`python3 scripts/gpu_bench.py OUT` runs it where only torch and numpy are; on a CPU it is rehearsed with `--tiny`.
"""
