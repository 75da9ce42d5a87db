# make demo    ingest the bundled data and serve it with the portal on http://127.0.0.1:8000
# make test    run every test, browser and servers included
# make setup   what both need: .venv, the built portal, the tests' own tools
# make lint    ruff, mypy
# make bench   the benchmarks, beside their rivals

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PORTAL := cim_server/portal
STAMPS := $(VENV)/.stamps
PORT ?= 8000
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Installs Debian packages as root; otherwise says which are needed.
apt = if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(1); else echo "needed: sudo apt-get install $(1)"; exit 1; fi

.DEFAULT_GOAL := demo
.PHONY: setup demo test lint bench clean chromium postgis

setup: $(STAMPS)/python $(STAMPS)/kernels $(STAMPS)/portal $(STAMPS)/glyphs $(STAMPS)/node-tests chromium postgis

demo: $(STAMPS)/python $(STAMPS)/portal $(STAMPS)/glyphs
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
	rm -rf $(VENV) $(PORTAL)/node_modules $(PORTAL)/static styles/fonts tests/node/node_modules benchmarks/node/node_modules data/demo dist

# A stamp is newer than what it was made from, so a second `make setup` does nothing.
$(STAMPS)/python: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: apt-get install python3 python3-venv, or make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { $(call apt,python3-venv); }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'uv>=0.5,<1'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	mkdir -p $(STAMPS) && touch $@

# Compiled once here, rather than by every process of the tests at the same time.
$(STAMPS)/kernels: $(STAMPS)/python $(wildcard tiling/formats/*.py tiling/tilers/*.py)
	$(BIN)/python -m tiling.testing.warm
	touch $@

$(STAMPS)/portal: $(PORTAL)/package.json $(PORTAL)/package-lock.json $(PORTAL)/vite.config.ts $(PORTAL)/index.html $(shell find $(PORTAL)/src -type f 2>/dev/null)
	@command -v npm >/dev/null || { $(call apt,nodejs npm); }
	@node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' || { echo "the portal is built with Node.js 20 or newer, this is $$(node --version): see nodejs.org"; exit 1; }
	npm ci --prefix $(PORTAL) --no-audit --no-fund --loglevel=error
	npm run build --prefix $(PORTAL) --silent
	mkdir -p $(STAMPS) && touch $@

# What maps write with: a font that npm brought, drawn once.
$(STAMPS)/glyphs: $(STAMPS)/python $(PORTAL)/package-lock.json styles/glyph_builder.py styles/glyphs.py | $(STAMPS)/portal
	$(BIN)/python -m styles.glyph_builder $(PORTAL)/node_modules/@fontsource-variable/noto-sans-sc
	touch $@

$(STAMPS)/node-tests: tests/node/package.json tests/node/package-lock.json
	npm ci --prefix tests/node --no-audit --no-fund --loglevel=error
	mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: pyproject.toml benchmarks/node/package.json benchmarks/node/package-lock.json
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --group bench
	npm ci --prefix benchmarks/node --no-audit --no-fund --loglevel=error
	@command -v draco_encoder >/dev/null || { $(call apt,draco); }
	mkdir -p $(STAMPS) && touch $@

# The browser tests need Chromium and a font with Chinese glyphs.
chromium:
	@command -v chromium >/dev/null && fc-list :lang=zh 2>/dev/null | grep -q . \
	  || { $(call apt,chromium fonts-wqy-zenhei fontconfig); }

# The catalogue's laws are tested on PostgreSQL too.
postgis:
	@ls /usr/share/postgresql/*/extension/postgis.control >/dev/null 2>&1 \
	  || { $(call apt,postgresql-postgis); }
