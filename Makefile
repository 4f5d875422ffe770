# `make` lists what can be done. Two are enough to begin with: `make up` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Every module of the workspace, in the order of go.work; GOWORK in the environment must
# not hide it.
modules = $(shell GOWORK= go list -m -f '{{.Dir}}')
# Unit tests and images use what each module's own go.mod says; the workspace is for
# development and for the stories.
alone := GOWORK=off
# Built, not `go run`: that ends with an error after Ctrl-C, however well the program did.
WAYBILL := env GOWORK= go build -o bin/waybill ./scripts/waybill && exec bin/waybill

# The race detector needs a C compiler.
race := $(shell cc="$$(go env CC)"; if [ "$$(go env CGO_ENABLED)" = 1 ] && command -v "$${cc%% *}" >/dev/null; then echo -race; fi)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-15s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: ## Build and start everything, place a sample order, stay until Ctrl-C (ARGS="--port-base 20000" …)
	@$(WAYBILL) up $(ARGS)

.PHONY: status down reset
status: ## What runs, whether it is ready, what it takes
	@$(WAYBILL) status
down: ## Stop everything; the data stays
	@$(WAYBILL) down
reset: ## Stop everything and delete the data in .waybill
	@$(WAYBILL) reset --yes

.PHONY: test
test: test-unit test-e2e ## All tests: every module by itself, then the stories against a running stack

.PHONY: test-unit
test-unit: race-said ## Every module's tests, as the module stands by itself
	@failed=(); \
	for dir in $(modules); do \
		name=$${dir#$(CURDIR)/}; [ "$$name" != scripts/e2e ] || continue; \
		printf '\n== %s\n' "$$name"; \
		(cd "$$dir" && $(alone) go test $(race) -shuffle=on -timeout 10m ./...) || failed+=("$$name"); \
	done; \
	if [ $${#failed[@]} -gt 0 ]; then printf '\nFAILED: %s\n' "$${failed[*]}"; exit 1; fi

.PHONY: test-e2e
test-e2e: race-said ## The stories over HTTP and Kafka, against a stack of their own (ARGS="-run TestCancel" …)
	@printf '\n== scripts/e2e\n'; cd scripts/e2e && GOWORK= go test $(race) -shuffle=on -count=1 -timeout 20m ./... $(ARGS)

.PHONY: test-kafka
test-kafka: ## The same stories on Apache Kafka, where Maven and a Java runtime are on the machine
	@scripts/kafka/run.sh --check; \
	dir=$$(mktemp -d); port=$${KAFKA_PORT:-19092}; \
	scripts/kafka/run.sh $$port "$$dir" >"$$dir/kafka.log" 2>&1 & kafka=$$!; \
	trap 'kill $$kafka 2>/dev/null || :; wait $$kafka 2>/dev/null || :; rm -rf "$$dir"' EXIT; \
	for i in $$(seq 240); do (exec 3<>/dev/tcp/127.0.0.1/$$port) 2>/dev/null && break; \
		kill -0 $$kafka 2>/dev/null || { cat "$$dir/kafka.log"; exit 1; }; sleep 0.5; done; \
	printf '\n== scripts/e2e on Apache Kafka\n'; \
	(cd scripts/e2e && WAYBILL_E2E_KAFKA=127.0.0.1:$$port GOWORK= go test -shuffle=on -count=1 -timeout 30m ./... $(ARGS))

.PHONY: images image-names
images: ## Build the images that Compose and the kind overlay use
	@docker compose build
image-names: ## Name them, for `kind load docker-image`
	@docker compose config --images | grep '^waybill/' | sort -u

.PHONY: race-said
race-said:
	@[ -n "$(race)" ] || echo "There is no C compiler here: the tests run WITHOUT the race detector."

.PHONY: lint
lint: ## gofmt, go vet, tidy go.mod files, and that each module builds by itself
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then printf 'not formatted (gofmt -w):\n%s\n' "$$unformatted"; exit 1; fi
	@for dir in $(modules); do \
		echo "vet $${dir#$(CURDIR)/}"; \
		(cd "$$dir" && $(alone) go build ./... && $(alone) go vet ./... && $(alone) go mod tidy -diff) || exit 1; \
	done

.PHONY: staticcheck
staticcheck: ## staticcheck of each module
	@for dir in $(modules); do \
		echo "staticcheck $${dir#$(CURDIR)/}"; \
		(cd "$$dir" && $(alone) go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...) || exit 1; \
	done

# govulncheck exits 3 where it found something and 1 where it could not look.
.PHONY: vulnerabilities
vulnerabilities: ## govulncheck of each module, where its database can be reached
	@for dir in $(modules); do \
		said=$$(cd "$$dir" && $(alone) go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./... 2>&1) && continue; \
		case "$$said" in *"exit status 3"*) printf '%s\n%s\n' "$$dir" "$$said"; exit 1;; esac; \
		echo "govulncheck cannot reach its database here: SKIPPED."; break; \
	done

.PHONY: verify
verify: lint staticcheck vulnerabilities contracts ## Everything that must hold before a change lands, but for the tests
	@cd libs && $(alone) go test -count=1 . ./event
	@git diff --exit-code --stat -- proto/gen docs || { echo "generated files are not current: commit what make generate writes"; exit 1; }

.PHONY: generate
generate: buf ## Write generated code and documents anew
	@cd proto && npx buf lint && npx buf generate
	@for dir in $(modules); do (cd "$$dir" && $(alone) go generate ./...) || exit 1; done

.PHONY: contracts
contracts: ## Generated code is current, contracts break nothing (needs npm; says so when it is missing)
	@if command -v npm >/dev/null; then $(MAKE) generate && cd proto && npx buf breaking --against baseline.binpb && node asyncapi.mjs; \
	else echo "There is no npm here: buf lint, generate and breaking, and the AsyncAPI parser are SKIPPED."; fi

.PHONY: buf
buf:
	@[ -x proto/node_modules/.bin/buf ] || npm --prefix proto install --silent --no-audit --no-fund --no-save --no-package-lock

.PHONY: bench
bench: ## Orders per second, CPU and memory of a stack that runs (ARGS="--rate 1000" …)
	@$(WAYBILL) bench orders $(ARGS)

.PHONY: tidy
tidy: ## Tidy every go.mod
	@for dir in $(modules); do (cd "$$dir" && $(alone) go mod tidy) || exit 1; done

.PHONY: cover
cover: ## Coverage of every module's unit tests
	@for dir in $(modules); do \
		name=$${dir#$(CURDIR)/}; [ "$$name" != scripts/e2e ] || continue; \
		(cd "$$dir" && $(alone) go test -cover ./... | sed "s|^|$$name: |"); \
	done

.PHONY: clean
clean: ## Remove what was built; the data stays
	@rm -rf bin .waybill/bin
