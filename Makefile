# `make` alone lists the targets. What takes more than a line stands in a
# script beside what it is about; each can be run without make.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The modules that hold our own code: those of go.work, which need each other,
# and the end-to-end tests. Those in compose/tools only build somebody else's.
MODULES = $$(go list -m -f '{{.Dir}}') compose/e2e
# Their packages, without those of the end-to-end tests.
PACKAGES = $$(go list -m -f '{{.Dir}}/...')

TOOL := compose/tools/build.sh

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: up
up: ## bring the fleet up and wait until all of it is healthy; WITH=name,name adds what compose/with has, none takes it away
	@compose/up.sh "$(WITH)"

.PHONY: down
down: ## stop the fleet; its data stays
	@compose/down.sh

.PHONY: clean
clean: ## stop the fleet; remove its data, its images and what `make up` wrote here
	@compose/clean.sh

.PHONY: logs
logs: ## follow the fleet's logs
	@docker compose logs --follow --tail 20

.PHONY: images
images: ## pull or build the fleet's images, without starting it
	@compose/images.sh

.PHONY: tools
tools: ## build the tools that `make test` needs into the user's cache
	@for tool in gotestsum golangci-lint consul prometheus jaeger; do $(TOOL) $$tool; done

.PHONY: test
test: ## all of it: unit, real Consul, lint, compose, end to end
	@.ci/test

.PHONY: test-unit
test-unit: ## the inner loop: unit tests; no Docker, no Consul
	@env -u CONSUL_BIN -u PROMETHEUS_BIN -u JAEGER_BIN go test $(PACKAGES)

.PHONY: test-real
test-real: ## unit tests and the same behaviours against a real Consul, Prometheus and Jaeger, with the race detector
	@CONSUL_BIN="$$($(TOOL) consul)/consul" PROMETHEUS_BIN="$$($(TOOL) prometheus)/prometheus" JAEGER_BIN="$$($(TOOL) jaeger)/jaeger" go test -race $(PACKAGES)

.PHONY: e2e
e2e: ## the composed fleet, end to end, beside a running one
	@compose/images.sh
	@cd compose/e2e && ROLLCALL_E2E=1 go test -v -count=1 -timeout 15m .

.PHONY: bench
bench: ## benchmarks, with allocations
	@go test -run '^$$' -bench . -benchmem $(PACKAGES)

.PHONY: fuzz
fuzz: ## every fuzz target for 60 s each; FUZZTIME=, ONLY=, PARALLEL=
	@.ci/fuzz

.PHONY: faults
faults: ## one fault at a time under load, as a table; ONLY=name,name RUNS=3 SET=short LOAD=0.5 OUT=docs/measurements
	@compose/images.sh
	@cd compose/e2e && go run ./faults -root ../.. -only "$(ONLY)" -set "$(or $(SET),all)" -runs "$(or $(RUNS),1)" \
		$(if $(LOAD),-load "$(LOAD)") $(if $(OUT),-out "$(abspath $(OUT))")

.PHONY: soak
soak: ## 30 minutes of random faults under load: does the gateway grow? SEED= OUT=docs/measurements
	@compose/images.sh
	@cd compose/e2e && go run ./faults -root ../.. -soak "$(or $(FOR),30m)" -seed "$(or $(SEED),1)" $(if $(OUT),-out "$(abspath $(OUT))")

.PHONY: lint
lint: ## golangci-lint on each module, and shellcheck where it is installed
	@lint="$$($(TOOL) golangci-lint)/golangci-lint"; failed=0; \
	for module in $(MODULES); do \
		(cd $$module && "$$lint" run --config "$(CURDIR)/.golangci.yml" ./...) || failed=1; \
	done; \
	if command -v shellcheck >/dev/null; then \
		shellcheck compose/*.sh compose/with/*.sh compose/tools/*.sh .ci/run .ci/test .ci/fuzz || failed=1; \
	else \
		echo 'shellcheck is not installed: the scripts were not checked'; \
	fi; \
	exit $$failed

.PHONY: vet
vet: ## go vet on each module
	@for module in $(MODULES); do (cd $$module && go vet ./...); done

.PHONY: fmt
fmt: ## format all Go code
	@lint="$$($(TOOL) golangci-lint)/golangci-lint"; \
	for module in $(MODULES); do (cd $$module && "$$lint" fmt --config "$(CURDIR)/.golangci.yml" ./...); done

.PHONY: modules
modules: ## the modules as others get them: tidy, installed by version, what a client downloads
	@cd compose/e2e && go test -count=1 -v ./modules

.PHONY: tidy
tidy: ## go mod tidy in each module of ours; go itself can't, as long as they are not published
	@cd compose/e2e && go test -count=1 -run '/tidy' ./modules -tidy

.PHONY: generate
generate: ## write the Go code of services/*/*/*.proto (no protoc is needed), the OpenAPI clients of the examples, and the dashboards
	@cd services/generate && GOWORK=off go run . ../..
	@go generate ./docs/examples/openapi/...
	@go run ./observability/grafana/generate observability/grafana/dashboards

.PHONY: generate-check
generate-check: ## whether that would change anything
	@cd services/generate && GOWORK=off go run . -check ../..

.PHONY: check-config
check-config: ## whether Consul and Prometheus take their configuration
	@for tool in consul prometheus with/alertmanager; do \
		name="$$($(TOOL) --name $${tool#with/})"; \
		grep -Eq "/$${tool#with/}:v?$${name##*-}}" compose/$$tool.yaml || \
			{ echo "compose/$$tool.yaml pins another version than compose/tools builds: $$name"; exit 1; }; \
	done
	@"$$($(TOOL) prometheus)/promtool" check config observability/prometheus/prometheus.yml
	@"$$($(TOOL) prometheus)/promtool" check config --syntax-only compose/with/acl/prometheus.yml
	@"$$($(TOOL) prometheus)/promtool" test rules observability/prometheus/*_test.yml
	@bind="$$(mktemp -d)"; trap 'rm -rf "$$bind"' EXIT; \
	printf '%s\n' 'bind_addr = "127.0.0.1"' 'data_dir = "/consul/data"' > "$$bind/command-line.hcl"; \
	"$$($(TOOL) consul)/consul" validate compose/consul "$$bind"
