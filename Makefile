# quantcli. The two commands for a fresh clone are `make demo` and `make test`.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV ?= .venv
PY := $(VENV)/bin/python
RUN := $(VENV)/bin/quantcli
PIP := $(PY) -m pip --quiet --disable-pip-version-check

# The interpreter that makes $(VENV): the first one that is new enough, or the one given by PYTHON=...
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
    "$$p" -c '$(NEW_ENOUGH)' 2>/dev/null && { echo "$$p"; break; }; done)

SAMPLE := sample_models/digits_mobilenet.onnx
DATA := sample_models/data
OUT := demo-output

.PHONY: help
help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

# --- environments ----------------------------------------------------------------------------------------

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "error: quantcli needs Python 3.11 or newer, and none was found."; \
	    echo "  hint: name one: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12"; exit 1; } >&2
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' || { echo "error: '$(PYTHON)' is no Python 3.11 or newer."; \
	    echo "  hint: name another: make $(or $(MAKECMDGOALS),demo) PYTHON=/path/to/python3.12"; exit 1; } >&2
	@"$(PYTHON)" -m venv "$(VENV)" || { echo "error: '$(PYTHON)' cannot make a virtual environment."; \
	    echo "  hint: Debian and Ubuntu have it in the package python3-venv."; exit 1; } >&2
	@touch $@

# Editable, so that neither the demo nor the tests ever run an old copy.
$(VENV)/.runtime: pyproject.toml $(VENV)/.made
	@echo "installing quantcli into $(VENV) ..."
	@$(PIP) install --editable .
	@touch $@

# The groups are read here because `pip install --group` needs a newer pip than Python 3.11 brings.
GROUP = $(PY) -c 'import sys, tomllib; f = open("pyproject.toml", "rb"); \
    print("\n".join(tomllib.load(f)["dependency-groups"][sys.argv[1]]))'

$(VENV)/.dev: pyproject.toml $(VENV)/.runtime
	@echo "installing what the tests need into $(VENV) ..."
	@$(GROUP) dev > $(VENV)/dev-requirements.txt
	@$(PIP) install --requirement $(VENV)/dev-requirements.txt
	@touch $@

$(VENV)/.browser: pyproject.toml $(VENV)/.dev
	@$(GROUP) browser > $(VENV)/browser-requirements.txt
	@$(PIP) install --requirement $(VENV)/browser-requirements.txt
	@touch $@

# --- for users -------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.runtime ## Calibrate, convert and compare a sample model; leaves demo-output/report.md
	@mkdir -p $(OUT)
	$(RUN) calibrate $(SAMPLE) --data $(DATA)/digits_calib.npz -o $(OUT)/digits_mobilenet.calib -f
	@echo
	$(RUN) convert $(SAMPLE) --calibration $(OUT)/digits_mobilenet.calib --data $(DATA)/digits_calib.npz \
	    --eval-data $(DATA)/digits_eval.npz -o $(OUT)/digits_mobilenet.int8.onnx -f
	@echo
	$(RUN) compare $(SAMPLE) $(OUT)/digits_mobilenet.int8.onnx --data $(DATA)/digits_eval.npz \
	    --labels $(DATA)/digits_eval_labels.npy --gate 'accuracy_drop<=2pp' --gate 'sqnr>=20' --latency \
	    --report $(OUT)/report.md --report $(OUT)/report.json -f
	@echo
	@echo "the report: $(OUT)/report.md and $(OUT)/report.json"

# --- for developers --------------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.dev ## Run the tests (without the slow ones), with coverage
	@$(PY) -m pytest -n 2 --dist loadfile --cov=quantcli --cov-report=term:skip-covered --cov-fail-under=0

.PHONY: test-browser
test-browser: $(VENV)/.browser ## Open HTML reports in the Chromium of the system (QUANTCLI_CHROMIUM names another)
	@QUANTCLI_REQUIRE_BROWSER=1 $(PY) -m pytest -m browser tests/report/test_browser.py

.PHONY: test-all
test-all: $(VENV)/.dev test-browser ## Run all tests; branch coverage must reach the limit in pyproject.toml
	@$(PY) -m pytest -m 'not browser' --cov=quantcli --cov-report=term-missing:skip-covered

.PHONY: lint
lint: $(VENV)/.dev ## Check style and types
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

.PHONY: format
format: $(VENV)/.dev ## Format the code
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

.PHONY: docs
docs: $(VENV)/.dev ## Generate the reference pages in docs/
	@$(PY) docs/make_reference.py

.PHONY: check
check: lint test ## Everything that must hold before a commit: lint, tests, generated docs
	@$(PY) docs/make_reference.py --check

.PHONY: bench
bench: $(VENV)/.dev ## Measure against other tools; WRITE=docs/benchmarks.md puts the tables there
	@status=0; for script in accuracy_and_speed calibration_cost; do \
	    $(PY) benchmarks/$$script.py $(if $(WRITE),--write "$(WRITE)") || status=1; echo; done; exit $$status

.PHONY: samples
samples: $(VENV)-samples/.made ## Train the sample models again (five minutes; downloads torch)
	@$(VENV)-samples/bin/python sample_models/make_samples.py

$(VENV)-samples/.made: sample_models/requirements.txt $(VENV)/.made
	@"$(PY)" -m venv "$(VENV)-samples"
	@$(VENV)-samples/bin/python -m pip --quiet --disable-pip-version-check install -r $<
	@touch $@

.PHONY: clean
clean: ## Remove what was made here, except the environments
	@rm -rf $(OUT) build dist quantcli.egg-info .coverage htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find quantcli tests docs sample_models benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
