# Targets: demo test build package | prove bench | generate lint clean      (make help explains)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# What the tests need beside Go, by Debian package name. `make test` installs what is missing.
NEEDS := gcc libc6-dev git dpkg init-system-helpers systemd protobuf-compiler strace \
	mosquitto mosquitto-clients python3-pymodbus python3-serial python3-serial-asyncio python3-paho-mqtt \
	socat mbpoll libmodbus-dev pkg-config

VERSION ?= $(shell git describe --tags --match 'v[0-9]*' --dirty 2>/dev/null || \
	echo "v0.0.0-0-g$$(git rev-parse --short HEAD 2>/dev/null || echo unknown)")
ARCH ?= $(shell dpkg --print-architecture 2>/dev/null || go env GOARCH)
BIN ?= bin
DIST ?= dist
FUZZTIME ?= 30s

# Debian's name of an architecture is Go's, but for 32-bit ARM.
GOENV := CGO_ENABLED=0 GOOS=linux GOARM=7 GOARCH=$(patsubst armhf,arm,$(ARCH))
SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
LDFLAGS := -s -w -buildid= -X main.version=$(VERSION) -X main.built=$(SOURCE_DATE_EPOCH)
GOBUILD := go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
GORUN := go run -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

.PHONY: help
help:
	@echo 'make demo      data arrives in a cloud in under a minute, without hardware or configuration'
	@echo 'make test      everything that must hold; installs what it needs and says so'
	@echo 'make build     $(BIN)/headgate and $(BIN)/plugins/'
	@echo 'make package   $(DIST)/*.deb for ARCH=amd64, arm64 or armhf'
	@echo 'make prove     the long way: fault injection, and FUZZTIME=30s for each fuzz target'
	@echo 'make interop   the MQTT suite in SUITE= against the broker: docs/conformance.md'
	@echo 'make bench     the benchmarks, end to end included'
	@echo 'make generate  everything that is generated; make lint: format, vet, staticcheck; make clean'

.PHONY: demo
demo:
	go run ./cmd/headgate demo

.PHONY: test
test: need lint generated
	go test -race -count=1 -timeout 12m ./...

.PHONY: need
need:
	@tools/need $(NEEDS)

.PHONY: lint
lint: bin/staticcheck
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || \
		{ echo "not formatted: $$unformatted. Run gofmt -w on it." >&2; exit 1; }
	go vet ./...
	bin/staticcheck ./...

bin/staticcheck: tools/lint/go.mod tools/lint/go.sum
	go -C tools/lint build -o ../../$@ honnef.co/go/tools/cmd/staticcheck

.PHONY: generate
generate:
	go generate ./...

.PHONY: generated
generated:
	tools/generated

.PHONY: prove
prove: need
	PROVE=1 go test -race -count=1 -timeout 60m ./...
	tools/fuzz $(FUZZTIME)

# Somebody else's suite against the program; SUITE is a working tree of it, see docs/conformance.md.
.PHONY: interop
interop:
	tools/interop $(SUITE)

.PHONY: bench
bench: bench-e2e bench-broker
	go test -run '^$$' -bench . -benchmem $$(go list ./... | grep -v '/gateway$$')

# From the publisher's PUBLISH to the cloud's hands, with fsync on, beside mosquitto's bridge.
.PHONY: bench-e2e
bench-e2e: need
	go test -run '^$$' -bench ToTheCloud -benchtime 1x -timeout 20m ./gateway

# A backlog and a link that is back: beside mosquitto's bridge, over a long way, with new messages beside it.
.PHONY: bench-catch-up
bench-catch-up: need
	go test -run '^$$' -bench 'CatchUp$$' -benchtime 1x -timeout 90m ./gateway

# The local broker beside mosquitto: rate, processor time and latency.
.PHONY: bench-broker
bench-broker: need
	go test -run '^$$' -bench 'Broker$$' -benchtime 1x -timeout 20m ./gateway

# Durable messages a second, the drain, a commit beside bbolt's, and wear, with the limits that they must keep.
.PHONY: bench-rates
bench-rates:
	go test -run '^$$' -bench 'Rates$$' -benchtime 1x ./storequeue ./gateway

.PHONY: build
build:
	$(GOENV) $(GOBUILD) -o $(BIN)/headgate ./cmd/headgate
	@mkdir -p $(BIN)/plugins
	plugins=$$(go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./plugins/...); \
		[ -z "$$plugins" ] || $(GOENV) $(GOBUILD) -o $(BIN)/plugins/ $$plugins

# Reproducible: the same commit and Go release give the same bytes anywhere.
STAGE := $(DIST)/$(ARCH)
MAINTAINER := The Headgate authors <maintainers@headgate.io>
# Version in Debian's order: 1.2.0~rc.1 < 1.2.0 < 1.2.0+5.gabc1234 < 1.2.1.
DEB_VERSION := $(shell echo '$(VERSION)' | \
	sed -E 's/^v//; s/-dirty$$/+dirty/; s/-([0-9]+)-g([0-9a-z]+)/+\1.g\2/; s/-/~/g')

.PHONY: package
package: bin/nfpm
	$(MAKE) --no-print-directory build BIN=$(STAGE)
	for shell in bash zsh fish; do \
		CGO_ENABLED=0 $(GORUN) ./cmd/headgate completion $$shell >$(STAGE)/completion.$$shell; done
	gzip -9nc CHANGELOG.md >$(STAGE)/NEWS.gz
	printf 'headgate (%s) stable; urgency=medium\n\n  * See NEWS.gz.\n\n -- %s  %s\n' '$(DEB_VERSION)' \
		'$(MAINTAINER)' "$$(LC_ALL=C date -Rud @$(SOURCE_DATE_EPOCH))" | gzip -9nc >$(STAGE)/changelog.gz
	ARCH=$(ARCH) DEB_VERSION=$(DEB_VERSION) MAINTAINER='$(MAINTAINER)' STAGE=$(STAGE) \
		SOURCE_DATE_EPOCH=$(SOURCE_DATE_EPOCH) bin/nfpm package -f packaging/nfpm.yaml -p deb -t $(DIST)/

bin/nfpm: tools/nfpm/go.mod tools/nfpm/go.sum
	go -C tools/nfpm build -o ../../$@ github.com/goreleaser/nfpm/v2/cmd/nfpm

.PHONY: clean
clean:
	rm -rf bin dist
