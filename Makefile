# Needs Python 3.11 or newer, pip and make; all else goes into .venv.
BIN := .venv/bin
.PHONY: environment demo test lint docs bench bench-peers release clean

environment:
	@scripts/environment .venv "--editable .[build,hub,dev]"

demo: environment
	@$(BIN)/python scripts/demo.py

test: environment
	@scripts/check

lint: environment
	@scripts/lint

docs: environment
	@scripts/docs

# make bench ROWS=name runs one row.
bench: environment
	@$(BIN)/python -m bench $(ROWS)

# PEERS=name,name measures some; SECONDS=2 ROUNDS=1 is quick, MORE="--no-write" only prints.
bench-peers: environment
	@$(BIN)/python -m bench.peers --peers "$(PEERS)" $(SECONDS:%=--seconds %) \
		$(ROUNDS:%=--rounds %) $(MORE)

release:
	@scripts/release

clean:
	rm -rf .venv dist build demo bench/work .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
