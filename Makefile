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

# One recipe for each environment: .venv/dev, .venv/aws, .venv/sam; .venv/checkov and .venv/audit
# are made only for the targets that need them.
.venv/%/.made: requirements/%.txt .venv/python-path
	@echo "Installing the $* environment ..."
	@$(UV) venv -q --clear --python "$$(cat .venv/python-path)" .venv/$*
	@$(UV) pip install -q --python .venv/$* --require-hashes -r requirements/$*.txt
	@touch $@

environments: .venv/dev/.made .venv/aws/.made .venv/sam/.made

# The Lambda runtime brings boto3: the layer must not carry a part of it.
FROM_RUNTIME := botocore jmespath python-dateutil six urllib3
COMPILE = $(CURDIR)/$(UV) pip compile -q --upgrade --universal --python-version 3.11 \
    --generate-hashes --no-header --no-emit-index-url

lock: $(UV) ## pin every dependency anew, with hashes
	cd layers/dropreel && $(COMPILE) $(FROM_RUNTIME:%=--no-emit-package %) requirements.in -o requirements.txt
	cd layers/media && $(COMPILE) requirements.in -o requirements.txt
	cd requirements && $(COMPILE) uv.in -o uv.txt
	cd requirements && $(COMPILE) -c ../layers/dropreel/requirements.txt -c ../layers/media/requirements.txt dev.in -o dev.txt
	cd requirements && $(COMPILE) aws.in -o aws.txt
	cd requirements && $(COMPILE) sam.in -o sam.txt
	cd requirements && $(COMPILE) checkov.in -o checkov.txt
	cd requirements && $(COMPILE) audit.in -o audit.txt

.PHONY: help environments lock

# --- One machine: the embedded AWS and the demo ---

export PROMPT
export PYTHONPATH := $(CURDIR):$(CURDIR)/layers/dropreel

demo: environments ## drop files, get the video: [IMAGE= AUDIO= MODEL= PROMPT= OPTIONS=file.json]
	@$(DEV)/python -m local.demo $(if $(IMAGE),--image "$(IMAGE)") $(if $(AUDIO),--audio "$(AUDIO)") \
	    $(if $(MODEL),--model "$(MODEL)") $(if $(PROMPT),--prompt "$$PROMPT") \
	    $(if $(OPTIONS),--options "$(OPTIONS)")

up: environments ## start the embedded AWS, deploy into it, leave it running: [PARAMETERS="Key=value ..."]
	@$(DEV)/python -m local.embedded up $(PARAMETERS:%=--set "%")

down: environments ## stop it
	@$(DEV)/python -m local.embedded down

# --- Checks ---

test: environments ## all tests: unit, integration, e2e
	@$(DEV)/pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder -m "not long"

test-all: test types ways in-flight hunt checkov ## the tests, and what takes longer: types, Terraform and CDK, an update, the scan, the hunt, both architectures, the benches
	@for one in arm64 x86_64; do $(MAKE) build ARCHITECTURE=$$one && $(DEV)/python -m tests.bench.layers || exit 1; done
	@$(MAKE) bench-cold bench-deliver bench-latency bench-intake bench-drops bench-burst

lint: environments ## ruff, mypy, the direction of imports, sam validate, cfn-lint
	$(DEV)/ruff check
	$(DEV)/ruff format --check
	$(DEV)/mypy layers/dropreel/dropreel deploy local operate tests
	$(DEV)/lint-imports --no-cache
	@for handler in functions/*/app.py examples/consumers/lambda/src/app.py; do echo "mypy $$handler"; $(DEV)/mypy $$handler || exit 1; done
	@for template in template.yaml examples/consumers/*/template.yaml; do \
	    PATH="$(CURDIR)/$(SAM):$$PATH" $(SAM)/sam validate --lint --region us-east-1 -t $$template || exit 1; \
	done
	$(SAM)/cfn-lint template.yaml examples/consumers/*/template.yaml

format: environments ## let ruff mend what it can
	$(DEV)/ruff check --fix
	$(DEV)/ruff format

events: environments ## write the schemas and examples in events/, a consumer's types, the README's table of models, docs/costs.md
	@$(DEV)/python -m local.contract
	@$(DEV)/python -m local.consumer_models
	@$(DEV)/python -m tests.support.example_events
	@$(DEV)/python -m local.models
	@$(DEV)/python -m local.costs

terraform: .venv/dev/.made ## write the Terraform module's variables and outputs, from the template
	@$(DEV)/python -m deploy.terraform_module

VIDEO ?= out/anna.mp4

picture: environments ## draw docs/dropreel.png from a video of the demo: [VIDEO=out/anna.mp4]
	@$(DEV)/python -m local.picture "$(VIDEO)"

dashboard: environments ## draw docs/dashboard.png from a burst on the embedded AWS: takes five minutes
	@$(DEV)/python -m local.dashboard

types: environments ## check the TypeScript types that the events' schemas give; needs node
	@$(DEV)/pytest tests/types

ways: environments ## try the packaged template with Terraform and CDK; needs terraform and node: [PLUGINS=folder]
	@PLUGINS="$(PLUGINS)" $(DEV)/pytest tests/ways

in-flight: environments ## update a deployed stack with jobs in flight, delete it while one waits, delete a person's data
	@$(DEV)/pytest tests/update tests/e2e/test_removing_a_person.py

checkov: environments .venv/checkov/.made ## scan the template; each finding is mended, or named in docs/security.md
	@$(DEV)/python -m local.findings .venv/checkov/bin/checkov

ALL_ENVIRONMENTS := dev aws sam checkov audit

licences: environments .venv/checkov/.made .venv/audit/.made ## write NOTICE, with the licence of every locked library
	@$(DEV)/python -m local.licences .venv/audit/bin/pip-licenses .venv/uv $(ALL_ENVIRONMENTS:%=.venv/%)

audit: .venv/dev/.made .venv/audit/.made ## ask for known vulnerabilities of every locked library; needs PyPI itself
	@$(DEV)/python -m local.vulnerabilities .venv/audit/bin/pip-audit

sbom: .venv/audit/.made ## write what each layer has, as CycloneDX, to out/sbom/
	@mkdir -p out/sbom
	@for layer in dropreel media; do \
	    $(UV) venv -q --clear --python "$$(cat .venv/python-path)" .venv/sbom-$$layer && \
	    $(UV) pip install -q --python .venv/sbom-$$layer --require-hashes --no-deps -r layers/$$layer/requirements.txt && \
	    .venv/audit/bin/cyclonedx-py environment .venv/sbom-$$layer/bin/python --output-reproducible \
	        -o out/sbom/$$layer.cdx.json || exit 1; \
	done

EXAMPLES ?= 1000

hunt: environments ## look long for what breaks admission, about two examples a second: [EXAMPLES=1000]
	@EXAMPLES=$(EXAMPLES) $(DEV)/pytest tests/integration/test_admission_interleaved.py

bench-cold: environments ## measure each function's cold start, beside that of boto3's S3 client
	@$(DEV)/python -m tests.bench.cold

bench-deliver: environments ## measure deliver's memory while it copies 1 GiB
	@$(DEV)/python -m tests.bench.deliver

costs: environments ## count what AWS charges for, and write docs/costs.md
	@$(DEV)/python -m tests.bench.costs

bench-burst: environments ## drop N pairs at once on a bad day, compare with 50, measure memory: [N=1000]
	@$(DEV)/python -m tests.bench.burst --jobs $(N) --compare

bench-drops: environments ## drop files in every way people do, count what is paid for: [ONLY=words of a title]
	@$(DEV)/python -m tests.bench.drops --only "$(ONLY)"

bench-intake: environments ## count what intake asks of AWS for each of 5,000 pairs
	@$(DEV)/python -m tests.bench.intake_calls

bench-latency: environments ## measure the time from the last upload to the call at the provider
	@$(DEV)/python -m tests.bench.latency

bench-reports: environments ## measure what `make jobs`, `job` and `cost` read with 100,000 jobs
	@$(DEV)/python -m tests.bench.reports

# --- A real account ---

N ?= 1000
ARCHITECTURE ?= arm64
PARAMETERS ?=

build: .venv/sam/.made .venv/dev/.made ## build for an account (arm64, or ARCHITECTURE=x86_64)
	@$(DEV)/python -m deploy.build $(ARCHITECTURE)

stack-name: .venv/dev/.made
	@$(DEV)/python -m deploy.stack_name "$(STACK)"

deploy: stack-name build ## deploy into your account: [PARAMETERS="Key=value ..."] [STACK=name]
	$(SAM)/sam deploy --stack-name "$(STACK)" --parameter-overrides Architecture=$(ARCHITECTURE) $(PARAMETERS)
	@echo "Next: make token STACK=$(STACK)   (once for each provider)"
	@echo "Then: make check STACK=$(STACK)   (does it work? It pays nothing)"

PREFIX ?= dropreel

package: stack-name build sbom ## upload one template for Terraform, CDK and the console: BUCKET= [PREFIX= STACK= ARCHITECTURE=]
	@$(DEV)/python -m deploy.package --bucket "$(BUCKET)" --prefix "$(PREFIX)" --stack "$(STACK)"

PROVIDER ?= RunComfy
STACK ?= dropreel

export STACK PROVIDER ID FAILED_SINCE SINCE FOLDER
OPERATE := $(DEV)/python -m operate

token: .venv/dev/.made ## store a provider's API token in the stack's secret: [PROVIDER=WaveSpeed]
	@$(OPERATE) token --stack "$$STACK" --provider "$$PROVIDER"

jobs: .venv/dev/.made ## list the jobs that have not ended, and those of a day: [FOLDER=team STATE="waits failed" SINCE=1d WATCH=1]
	@$(OPERATE) jobs --stack "$$STACK" $(if $(SINCE),--since "$$SINCE") \
	    $(if $(FOLDER),--folder "$$FOLDER") $(STATE:%=--state %) \
	    $(if $(filter-out 0,$(WATCH)),--watch)

job: .venv/dev/.made ## tell one job's whole story: ID=its id, or folder and name
	@$(OPERATE) job --stack "$$STACK" "$$ID"

cost: .venv/dev/.made ## add up what renders cost: [SINCE=30d BY="day provider model folder"]
	@$(OPERATE) cost --stack "$$STACK" $(if $(SINCE),--since "$$SINCE") $(BY:%=--by %)

rerun: .venv/dev/.made ## run failed jobs again, paying nothing twice: ID= or FAILED_SINCE=2h [DRY_RUN=1 YES=1], or make a video again and pay again: ID= AGAIN=1
	@$(OPERATE) rerun --stack "$$STACK" $(if $(ID),--id "$$ID") \
	    $(if $(FAILED_SINCE),--failed-since "$$FAILED_SINCE") \
	    $(if $(filter-out 0,$(DRY_RUN)),--dry-run) $(if $(filter-out 0,$(YES)),--yes) \
	    $(if $(filter-out 0,$(AGAIN)),--again)

check: .venv/dev/.made ## does the deployed stack work? pays nothing; RENDER=1 goes on to a short video, which is paid: [YES=1]
	@$(OPERATE) check --stack "$$STACK" $(if $(filter-out 0,$(RENDER)),--render) \
	    $(if $(filter-out 0,$(YES)),--yes)

sweep: .venv/dev/.made ## do now what the daily sweep does: start and conclude what events missed
	@$(OPERATE) sweep --stack "$$STACK"

teardown: .venv/dev/.made ## stop all jobs, then delete the stack; keeps buckets and ledger: [YES=1], or switch intake on again: UNDO=1
	@$(OPERATE) teardown --stack "$$STACK" $(if $(filter-out 0,$(YES)),--yes) \
	    $(if $(filter-out 0,$(UNDO)),--undo)

prices: .venv/dev/.made ## ask the providers what a second costs, and print the parameter to set
	@$(OPERATE) prices --stack "$$STACK"

redrive-uploads: .venv/dev/.made ## send uploads that intake failed on through intake again
	@$(OPERATE) redrive-uploads --stack "$$STACK"

purge-uploads: .venv/dev/.made ## delete the messages of uploads that intake failed on; the files stay: [YES=1]
	@$(OPERATE) purge-uploads --stack "$$STACK" $(if $(filter-out 0,$(YES)),--yes)

clean: down ## remove what was built, and the environments
	rm -rf out .aws-sam .venv

.PHONY: demo up down test test-all types ways in-flight checkov licences audit sbom hunt lint format events terraform prices picture dashboard costs bench-burst bench-cold bench-deliver \
    bench-drops bench-intake bench-latency bench-reports build deploy package stack-name token check jobs job cost rerun sweep teardown redrive-uploads purge-uploads clean
