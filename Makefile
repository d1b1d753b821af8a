# The front door. `make` alone lists what there is.
SHELL       := /usr/bin/env bash -euo pipefail
BUILD        = CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags "-s -w"
NESTED      := deploy/collector e2e/demo e2e/kube e2e/oldclient
GOTESTSUM    = $(CURDIR)/.bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build collector ## Start a cluster on this machine: etcd, SQLite with live telemetry, three sidecars, the console
	@echo "building the demo"
	@cd e2e/demo && CGO_ENABLED=0 go build -trimpath -o ../../.bin/ringside-demo .
	@exec .bin/ringside-demo

.PHONY: up
up: build collector ## Start a cluster as processes: three etcd, DB=postgres|mariadb|sqlite, three sidecars, Prometheus
	@e2e/setup.sh up
	@deploy/processes/cluster.sh up

.PHONY: status
status: ## Show each process of the cluster, its port, and whether it is ready
	@deploy/processes/cluster.sh status

.PHONY: down
down: ## End the cluster and leave nothing behind
	@deploy/processes/cluster.sh down

.PHONY: build
build: ## Build the sidecar into .bin/
	@echo "building ringside (the first time takes a minute or two)"
	@mkdir -p .bin && $(BUILD) -o .bin/ ./sidecar/cmd/ringside

.PHONY: collector
collector: ## Build the collector of live telemetry into .bin/
	@echo "building the collector"
	@mkdir -p .bin && cd deploy/collector && CGO_ENABLED=0 go build -trimpath -o ../../.bin/ringside-collector .

.PHONY: setup
setup: ## Install what the tests need, once
	@e2e/setup.sh test
	@e2e/setup.sh kube

.PHONY: test
test: setup lint ## Run every test: lint, units with -race, real servers, whole clusters
	@echo "== unit and integration tests"
	@$(GOTESTSUM) -race -timeout 15m $$(go list ./... | grep -vE '/e2e(/guards)?$$')
	@echo "== figures of memory and allocations, which the race detector would change"
	@$(GOTESTSUM) $$(grep -rl --include=*_test.go '^//go:build !race' sidecar origin ring | xargs -n1 dirname | sort -u | sed 's|^|./|')
	@for module in $(filter-out e2e/oldclient,$(NESTED)); do echo "== $$module"; (cd $$module && $(GOTESTSUM) -timeout 10m ./...); done
	@echo "== whole clusters"
	@$(GOTESTSUM) -timeout 45m ./e2e
	@echo "== guards, a sample"
	@go test -count=1 -timeout 10m -v ./e2e/guards | grep -E '^ *(guards_test|--- FAIL|FAIL|ok)|^ {4,}'

.PHONY: guards
guards: setup ## Remove every guard, one at a time, and check that its test fails (SEED=, SAMPLE= for fewer)
	@go test -count=1 -timeout 60m -v ./e2e/guards -all

.PHONY: lint
lint: ## Check format, vet, staticcheck, buf lint, and that generated code is current
	@e2e/setup.sh tools
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	@go vet ./... && .bin/staticcheck ./...
	@for module in $(NESTED); do (cd $$module && go vet ./... && ../../.bin/staticcheck ./...); done
	@cd proto && ../.bin/buf lint
	@e2e/generated.sh

.PHONY: generate
generate: ## Regenerate the Go code of proto/, CLI.md and METRICS.md
	@e2e/setup.sh tools
	@cd proto && ../.bin/buf generate
	@go test -count=1 ./sidecar/cmd/ringside ./sidecar/metrics -run 'Current|Document' -update

.PHONY: bench
bench: build ## Measure against nginx, Redis and a bare gRPC echo in the same run, and draw the plot
	@e2e/setup.sh bench
	@e2e/bench/run.sh

.PHONY: promises
promises: setup ## Measure the counted promises on real processes and print a table
	@cd e2e && go test -count=1 -timeout 45m -run '^TestPromise' -promises # here, where go test shows what tests print

.PHONY: clean
clean: ## Remove what make has built
	@rm -rf .bin .run
