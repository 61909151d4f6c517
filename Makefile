# make demo    everything: installs, starts, trains, prints the address     make demo DATA=<folder> CONFIG=<label config>
# make setup   .venv alone                                       make test | lint | bench | evidence | lock | demo-reset

VENV := .venv
UV_VERSION := $(shell sed -n 's/^uv==//p' requirements.lock)
DEMO_OPTIONS = $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--label-config "$(CONFIG)")
IS_311 = import sys; sys.exit(sys.version_info[:2] != (3, 11))

.PHONY: setup demo demo-reset test lint bench evidence lock programs

setup: $(VENV)/.installed

# The stamp is written last, so that an interrupted install is taken up again.
$(VENV)/.installed: requirements.lock pyproject.toml
	@found=; for python in python3.11 python3 python; do \
	    if $$python -c "$(IS_311)" 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Second Look is locked to Python 3.11, and none of python3.11, python3, python is one (python3: $$(python3 -V 2>&1))." >&2; \
	    echo "Install it (Debian, Ubuntu: python3.11 and python3.11-venv; elsewhere: uv python install 3.11) and try again." >&2; \
	    exit 1; \
	fi; \
	$(VENV)/bin/python -m pip --version >/dev/null 2>&1 || $$found -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --no-deps --compile-bytecode -r requirements.lock
	$(VENV)/bin/uv pip install --python $(VENV)/bin/python --no-deps --editable .
	@touch $@

demo: setup
	@$(VENV)/bin/second-look demo $(DEMO_OPTIONS)

demo-reset: setup
	@$(VENV)/bin/second-look demo --reset
	@$(VENV)/bin/second-look demo $(DEMO_OPTIONS)

# Two files at a time, a thread each: two trainings that share two cores by four threads take four times as long.
test: setup programs lint
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

bench: setup
	$(VENV)/bin/python -m bench

# 20 seeds of replays of labels, then those of masks: hours. What is in bench/evidence/results is not done again.
evidence: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m bench.evidence
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m bench.evidence --masks

# The override lifts label-studio-ml's pins of 2021.
lock: setup
	$(VENV)/bin/uv pip compile pyproject.toml requirements/label-studio-ml.in --all-extras \
	    --override requirements/overrides.txt --python-version 3.11 --no-annotate --no-header -q -o requirements.lock

# The tests look at the labelling screen in a real browser, and use a real PostgreSQL and Redis.
programs:
	@missing=chromium; \
	for browser in chromium chromium-browser google-chrome google-chrome-stable; do \
	    if command -v $$browser >/dev/null; then missing=; fi; \
	done; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || missing="$$missing postgresql"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; elif sudo -n true 2>/dev/null; then as_root=sudo; else as_root=no; fi; \
	if [ "$$as_root" = no ] || ! command -v apt-get >/dev/null; then \
	    echo "The tests need these programs, which this user cannot install with apt-get: $$missing. Install them and try again." >&2; \
	    exit 1; \
	fi; \
	$$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
