# kairos mesh. `make up` and `make test` are all that is needed on a fresh
# Debian-like machine with Go, as root; both install what is missing.

LAB := go run ./tests/lab/cmd/lab

# command:package, installed only where the command is missing
TOOLS := gcc:gcc ip:iproute2 nft:nftables ping:iputils-ping mount:mount nsenter:util-linux sudo:sudo git:git \
	mmdebstrap:mmdebstrap systemd-nspawn:systemd-container systemd-analyze:systemd dbus-daemon:dbus-daemon containerd:containerd runc:runc kubectl:kubernetes-client \
	dockerd:docker.io mcopy:mtools zstd:zstd
# file:package
FILES := /usr/include/stdlib.h:libc6-dev /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring

# generic: drivers and firmware of real hardware; cloud: virtual machines.
FLAVOUR := generic

# The seed of the power cuts of make machines and make soak, which they print; 0: by the clock.
SEED := 0

# How many machines make up starts.
MACHINES := 3

# Where make install-cli puts kairos: DESTDIR, then PREFIX, then bin.
PREFIX := /usr/local

# Flags for make bench, such as -check: see tests/bench/main.go.
BENCH :=

.PHONY: help up add down status image install-cli cli-image test machines soak lint vulncheck start-time bench install clean

help:
	@echo 'make up          three machines (MACHINES=N) from the OS image become a cluster'
	@echo 'make add         one more machine'
	@echo 'make status      how far each machine is'
	@echo 'make down        remove the machines and everything they made'
	@echo 'make image       the OS as a compressed disk and an installation medium, FLAVOUR=generic or cloud'
	@echo 'make install-cli kairos for this machine, into $(PREFIX)/bin'
	@echo 'make cli-image   kairos as a container image, kairos:latest in the Docker of this machine'
	@echo 'make test        install what is missing and run every test, with one virtual machine'
	@echo 'make machines    every story of virtual machines: an hour or two'
	@echo 'make soak        hours of upgrades and power cuts in virtual machines'
	@echo 'make lint        gofmt, go vet, staticcheck'
	@echo 'make vulncheck   known vulnerabilities in what the programs call (needs the internet)'
	@echo 'make start-time  seconds from start to three ready nodes, next to k3s started by hand'
	@echo 'make bench       the network beside wireguard-go, nebula and the bare kernel: half an hour of a quiet machine'

up: install
	@$(LAB) up $(MACHINES)

add: install
	@$(LAB) add

status:
	@$(LAB) status

down:
	@$(LAB) down

image: install
	go run ./image os --flavour $(FLAVOUR) --out build/os-$(FLAVOUR)
	go run ./image release --layout build/os-$(FLAVOUR) --out build/release
	go run ./image disk --release build/release --out build/kairos.raw.zst
	go run ./image iso --release build/release --out build/kairos.iso
	cd build && sha256sum kairos.raw.zst kairos.iso >SHA256SUMS

install-cli:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o build/kairos ./cmd/kairos
	install -D -m 0755 build/kairos $(DESTDIR)$(PREFIX)/bin/kairos

cli-image:
	go run ./image cli --out build/cli
	go run ./tests/lab/docker/load build/cli kairos:latest

test: install
	@go run ./tests/runner

machines: install
	go test -count=1 -timeout=30m -v ./tests/vm
	go test -count=1 -timeout=4h -v ./tests/vm/appliance -flavour cloud -seed $(SEED)
	go test -count=1 -timeout=1h -v ./tests/vm/appliance -flavour generic -run TestAPCStartsFromAStick

soak: install
	go test -count=1 -timeout=0 -v ./tests/vm/appliance -flavour cloud -soak -seed $(SEED)

lint:
	@go run ./tests/runner lint

vulncheck:
	go tool govulncheck $(if $(VULNDB),-db $(VULNDB)) ./...
	go tool govulncheck $(if $(VULNDB),-db $(VULNDB)) -C image/builder/containerd github.com/containerd/containerd/v2/cmd/...

start-time: install
	@$(LAB) start-time

bench: TOOLS += iperf3:iperf3
bench: install
	@go run ./tests/bench $(BENCH)

install:
	@missing=; \
	for t in $(TOOLS); do command -v "$${t%%:*}" >/dev/null || missing="$$missing $${t##*:}"; done; \
	for f in $(FILES); do [ -e "$${f%%:*}" ] || missing="$$missing $${f##*:}"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
		command -v docker >/dev/null || apt-get install -y -qq --no-install-recommends docker-cli >/dev/null; \
	fi

# The caches of k3s and of the OS image are in build/ as well.
clean: down
	rm -rf build
