# Each target is one command; the work is done in scripts/.
PROMPT ?= assets/prompt_piano.flac
SECONDS ?= 10
SEED ?= 1
BUNDLE ?= piano

.PHONY: run test check bench bench-live setup clean

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

setup:
	@scripts/setup.sh

clean:
	@rm -rf .venv build dist out *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
