# `make` alone lists the targets.
SHELL       := /usr/bin/env bash -euo pipefail
# grpcnotrace leaves out the traces of golang.org/x/net, whose templates make the linker keep every exported method.
BUILD        = CGO_ENABLED=0 go build -trimpath -buildvcs=auto -tags grpcnotrace -ldflags "-s -w"
NESTED      := deploy/collector e2e/bench/collection e2e/bench/rivals e2e/demo e2e/grafana e2e/kube e2e/oldclient e2e/oldclient/otlp e2e/oldclient/redis
# -short skips the tests that need installed programs; see NeedServers in e2e/rig.
SHORTTEST    = $(CURDIR)/.bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg --hide-summary skipped -- -short -timeout 10m

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: build collector ## Start a cluster on this machine: etcd, SQLite with live telemetry, three sidecars, the console
	@echo "building the demo"
	@cd e2e/demo && CGO_ENABLED=0 go build -trimpath -o ../../.bin/ringside-demo .
	@exec .bin/ringside-demo

.PHONY: up
up: build collector ## Start a cluster as processes: three etcd, DB=postgres|mysql|mariadb|sqlite, three sidecars, Prometheus
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

.PHONY: check
check: lint ## Run lint and the tests that need no installed program and no root: under two minutes
	@$(SHORTTEST) $$(go list ./... | grep -vE '/e2e(/guards)?$$')
	@$(SHORTTEST) -count=1 ./e2e ./e2e/guards # not from the cache: these tests list the files of the repository
	@for module in deploy/collector e2e/demo; do (cd $$module && $(SHORTTEST) ./...); done

.PHONY: test
test: ## Run every test, also on real servers and whole clusters. Installs Debian packages, as root, once
	@e2e/test.sh

.PHONY: guards
guards: setup ## Remove every guard, one at a time, and check that its test fails (ONLY=folder,name: only those)
	@go test -count=1 -parallel 3 -timeout 90m -v ./e2e/guards -all -only "$(ONLY)"

.PHONY: lint
lint: ## Check format, vet, staticcheck, buf lint, and that the generated code is current
	@e2e/setup.sh check
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }
	@go vet ./... && .bin/staticcheck ./...
	@for module in $(NESTED); do (cd $$module && go vet ./... && "$(CURDIR)/.bin/staticcheck" ./...); done
	@cd proto && ../.bin/buf lint
	@e2e/generated.sh

.PHONY: setup
setup: ## Install what make test, make guards and make promises need, once
	@e2e/setup.sh servers
	@e2e/setup.sh mysql
	@e2e/setup.sh programs
	@e2e/setup.sh functions
	@e2e/setup.sh kube

.PHONY: generate
generate: ## Generate the Go code of proto/, CLI.md, METRICS.md and the JSON schemas
	@e2e/setup.sh check
	@cd proto && ../.bin/buf generate
	@go test -count=1 ./sidecar/cmd/ringside ./sidecar/metrics -run 'Current|Document' -update
	@go test -count=1 ./sidecar/config -run Schema -update
	@cd e2e/kube && go test -count=1 -run Values -update .

.PHONY: release
release: ## Make the files of a release in dist/: programs, images, chart, SBOMs, checksums, provenance (VERSION=1.2.3, DRY_RUN=1)
	@rm -rf dist
	@go run ./deploy/release -version "$(VERSION)" $(if $(DRY_RUN),-dry-run)

.PHONY: bench
bench: build ## Measure against nginx, Varnish, Redis, memcached, daprd, groupcache and others in the same run, and draw plots
	@e2e/setup.sh bench
	@e2e/bench/run.sh

.PHONY: scale
scale: ## Measure what each of 20, 60 and 150 real members costs the others, and write e2e/scale/results.md, from a clean commit
	@e2e/scale/run.sh

.PHONY: simulate
simulate: ## Simulate up to 10 000 pods in virtual time, and write e2e/scale/SIMULATION.md with its picture, from a clean commit
	@e2e/scale/simulate.sh

.PHONY: promises
promises: setup ## Measure the promises on real processes and write the table of e2e/PROMISES.md, from a clean commit
	@e2e/promises.sh

.PHONY: functions
functions: ## Measure network functions with SQL and with Ringside, during faults, and write e2e/functions/RESULTS.md, from a clean commit
	@e2e/setup.sh functions
	@e2e/functions/run.sh

.PHONY: pictures
pictures: build collector ## Take the pictures of the console in sidecar/admin from the demo, which runs for ten minutes
	@cd e2e/demo && CGO_ENABLED=0 go build -trimpath -o ../../.bin/ringside-demo .
	@e2e/browser/pictures.sh

.PHONY: clean
clean: ## Remove what make has built
	@rm -rf .bin .run dist
