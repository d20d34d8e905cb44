# The tasks of criteria; "make help" lists them. Each target first provides what
# it needs: native parts and Python environments are made once, in the user's
# cache folder (see internal/cmd/deps), and reused.

GO ?= go
ifeq ($(shell command -v $(GO) 2>/dev/null),)
$(error Go is missing: install Go 1.26 or newer, see https://go.dev/doc/install)
endif

DEPS := $(GO) run ./internal/cmd/deps

# $(call native,VENVS) is the start of a recipe line: it lets the rest of the line
# link and find the native parts, and the tests in it the named Python environments.
native = env=$$($(DEPS) env $(1)) && eval "$$env" &&

# What the user may set, as in "make golden GOLDEN=../cases RUN=Tokenizer".
GOLDEN ?= testdata/golden
RUN    ?= ^TestGolden
BENCH  ?= .
TEXTS  ?= 1000000
TIME   ?= 10s
TEST   ?= ./...
ARGS   ?=
PYTHON ?= python3

.DEFAULT_GOAL := help
.PHONY: help demo test token-diff golden vet lint vulncheck api docs fmt bench bench-quality microbench fuzz peers serve-bench soak deps deps-cuda gpu-check gpu-pack env mlflow-venv peer-venv pins kernels clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## train a tiny classifier on the sample data and let it predict
	@$(call native) sh scripts/demo.sh $(ARGS)

test: ## run all tests (TEST=./internal/graph for some)
	@$(call native,mlflow cuda kernels) $(GO) run ./internal/cmd/gotest -- -timeout 30m $(TEST)

token-diff: ## compare the tokenizer with the Rust library (needs cargo) on TEXTS=N texts
	@env=$$($(DEPS) env oracle) && eval "$$env" && CRITERIA_TOKEN_TEXTS=$(TEXTS) \
		$(GO) run ./internal/cmd/gotest -v -- -tags daulet -count=1 -timeout 12h ./internal/token

golden: ## run the golden tests (RUN=REGEX) on the cases in GOLDEN=DIR
	@$(call native) sh scripts/golden.sh "$(GOLDEN)" "$(RUN)"

vet: ## go vet
	@$(GO) vet ./...

lint: ## vet, staticcheck, formatting and the rules of this repository
	@$(GO) vet ./...
	@$(GO) tool staticcheck ./...
	@$(GO) test ./internal/lint

vulncheck: ## look for known vulnerabilities in what is called, if their database is reachable
	@$(call native) GO="$(GO)" sh scripts/vulncheck.sh

docs: ## write docs/configuration.md anew, from conf/ and the code
	@$(GO) run ./internal/cmd/configdoc -w

api: ## record the exported API in internal/lint/testdata/api.txt
	@$(GO) test ./internal/lint -count=1 -run '^TestAPI$$' -update

fmt: ## format the Go code
	@$(GO) fmt ./...

bench: ## compare speed and memory with PyTorch's: one table, 12 minutes
	@$(call native,peer) $(GO) run ./internal/cmd/bench $(ARGS)

bench-quality: ## compare models with those of a PyTorch loop: hours; continues what was stopped
	@$(call native,peer) $(GO) run ./internal/cmd/quality $(ARGS)

microbench: ## run the Go benchmarks that match BENCH=REGEX
	@$(call native) $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 2h $(TEST)

fuzz: ## run every fuzz target in turn, each for TIME=10s
	@$(call native) sh scripts/fuzz.sh "$(TIME)"

peers: ## compare with PyTorch and transformers (downloads 3 GB once)
	@$(call native,mlflow peer) $(GO) run ./internal/cmd/gotest -v -some -- -count=1 -timeout 2h -tags peer -run '^TestPeer' ./...

serve-bench: ## compare examples/serve with FastAPI + transformers (ARGS="-shape base")
	@$(call native,peer) $(GO) run ./internal/cmd/loadtest bench -python "$$CRITERIA_PEER_PYTHON" $(ARGS)

soak: ## do to examples/serve all that clients do wrong (ARGS="-duration 10m")
	@$(call native) $(GO) run ./internal/cmd/loadtest soak $(ARGS)

deps: ## provide the native parts and say where they are
	@$(DEPS)

deps-cuda: ## provide what a GPU needs, once (730 MB), and say where it is
	@$(DEPS) cuda

gpu-check: deps-cuda ## on a machine with a GPU: results and speed beside PyTorch's, 8 minutes
	@$(call native,cuda) $(GO) run ./internal/cmd/gpucheck -python $(PYTHON) $(ARGS)

gpu-pack: ## pack gpu-check for a machine with a GPU, but no network and no Go
	@$(call native,cuda) $(GO) run ./internal/cmd/gpupack -o gpu-check $(ARGS)

env: ## print the export lines for a plain go build: eval "$(make -s env)"
	@$(DEPS) env

mlflow-venv: ## provide a Python environment with mlflow and onnx
	@$(DEPS) venv mlflow

peer-venv: ## provide a Python environment with torch and transformers
	@$(DEPS) venv peer

pins: ## pin what internal/cmd/deps/*.in ask for, with all that it needs, by hashes
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && $(PYTHON) -m venv "$$dir" && "$$dir/bin/pip" install --quiet uv==0.13.9 && \
		cd internal/cmd/deps && for name in kernels mlflow peer; do \
			"$$dir/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
				"$$name.in" -o "$$name.txt" || exit 1; done

kernels: ## compile the GPU kernels anew, from internal/kernels/*.py (needs no GPU)
	@python=$$($(DEPS) venv kernels) && new=$$(mktemp -d) && PYTHONDONTWRITEBYTECODE=1 "$$python" internal/kernels/build.py "$$new" && \
		rm -rf internal/kernels/bin && mkdir internal/kernels/bin && cp -R "$$new"/. internal/kernels/bin && rm -rf "$$new"

clean: ## remove what builds and tests leave here; results of runs stay
	@find . -path ./.git -prune -o -type f \( -name '*.test' -o -name '*.prof' \) -exec rm -f {} +
