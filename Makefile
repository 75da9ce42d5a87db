# make demo    ingest the bundled data and serve it with the portal on http://127.0.0.1:8000
# make test    run every test, browser and servers included
# make setup   what both need: .venv, the built portal, the tests' own tools
# make lint    ruff, mypy
# make bench   the benchmarks, beside their rivals

SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PORTAL := cim_server/portal
STAMPS := $(VENV)/.stamps
PORT ?= 8000
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := demo
.PHONY: setup demo test lint bench clean chromium

setup: $(STAMPS)/python $(STAMPS)/portal $(STAMPS)/node-tests chromium

demo: $(STAMPS)/python $(STAMPS)/portal
	@$(BIN)/cim demo --data data/demo --port $(PORT) $(if $(CIM_DEMO_EXIT),--check)

test: setup
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(STAMPS)/python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup $(STAMPS)/bench
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(PORTAL)/node_modules $(PORTAL)/static tests/node/node_modules data/demo dist

# A stamp is newer than what it was made from, so a second `make setup` does nothing.
$(STAMPS)/python: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is needed: apt-get install python3.11 python3.11-venv, or PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'uv>=0.5,<1'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/portal: $(PORTAL)/package.json $(PORTAL)/package-lock.json $(PORTAL)/vite.config.ts $(PORTAL)/index.html $(shell find $(PORTAL)/src -type f 2>/dev/null)
	@command -v npm >/dev/null || { echo "Node.js 20 with npm is needed to build the portal: apt-get install nodejs npm"; exit 1; }
	npm ci --prefix $(PORTAL) --no-audit --no-fund --loglevel=error
	npm run build --prefix $(PORTAL) --silent
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/node-tests: tests/node/package.json tests/node/package-lock.json
	npm ci --prefix tests/node --no-audit --no-fund --loglevel=error
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group bench
	mkdir -p $(STAMPS) && touch $@

# The browser test needs Chromium and a font with Chinese glyphs; nothing else comes from apt.
chromium:
	@command -v chromium >/dev/null && fc-list :lang=zh 2>/dev/null | grep -q . || { \
	  if [ "$$(id -u)" = 0 ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-wqy-zenhei fontconfig; \
	  else \
	    echo "the browser test needs: sudo apt-get install chromium fonts-wqy-zenhei fontconfig"; exit 1; \
	  fi; }
