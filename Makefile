# The one entry point. `make` alone lists what it can do.
# Every tool lives in an environment of its own under .venv/, made on first use from the
# hash-pinned requirements files; nothing is installed globally.

.DEFAULT_GOAL := help
SHELL := /bin/sh
export PYTHONDONTWRITEBYTECODE := 1
export SAM_CLI_TELEMETRY := 0

UV     := .venv/uv/bin/uv
DEV    := .venv/dev/bin
AWS    := .venv/aws/bin
SAM    := .venv/sam/bin

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# --- The environments ---

$(UV): requirements/uv.txt local/python.sh
	@python=$$(sh local/python.sh any) && rm -rf .venv/uv && "$$python" -m venv .venv/uv
	@.venv/uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $(UV)

.venv/python-path: $(UV)
	@sh local/python.sh $(UV) > $@.new && mv $@.new $@

# One recipe for each environment: .venv/dev, .venv/aws, .venv/sam.
.venv/%/.made: requirements/%.txt .venv/python-path
	@echo "Installing the $* environment ..."
	@$(UV) venv -q --clear --python "$$(cat .venv/python-path)" .venv/$*
	@$(UV) pip install -q --python .venv/$* --require-hashes -r requirements/$*.txt
	@touch $@

environments: .venv/dev/.made .venv/aws/.made .venv/sam/.made

lock: $(UV) ## pin every dependency anew, with hashes
	@for file in layers/dropreel/requirements layers/media/requirements \
	    requirements/uv requirements/dev requirements/aws requirements/sam; do \
	    (cd $$(dirname $$file) && $(CURDIR)/$(UV) pip compile -q --upgrade --universal --python-version 3.11 \
	        --generate-hashes --no-header --no-emit-index-url $$(basename $$file).in -o $$(basename $$file).txt) || exit 1; \
	done

.PHONY: help environments lock
