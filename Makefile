# Each target is one command; the work is done in scripts/.
PROMPT ?= assets/prompt_piano.flac
SECONDS ?= 10
# All of the seeds 1 to 4 sound throughout (scripts/silent_share.py piano assets/prompt_piano.flac, engine onnx-int8).
SEED ?= 1
BUNDLE ?= piano

.PHONY: run test check bench bench-live bench-peers setup clean

run: setup
	@scripts/run.sh "$(PROMPT)" "$(SECONDS)" "$(SEED)" "$(BUNDLE)"

test: setup
	@scripts/test.sh

check: setup
	@scripts/check.sh

bench: setup
	@scripts/bench.sh

bench-live: setup
	@scripts/bench.sh live

bench-peers: setup
	@scripts/bench_peers.sh

setup:
	@scripts/setup.sh

clean:
	@rm -rf .venv build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
