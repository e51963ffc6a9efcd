# kairos mesh. `make up` and `make test` are all that is needed on a fresh
# Debian-like machine with Go, as root; both install what is missing.

LAB := go run ./tests/lab/cmd/lab

# command:package, installed only where the command is missing
TOOLS := gcc:gcc ip:iproute2 nft:nftables ping:iputils-ping mount:mount nsenter:util-linux sudo:sudo git:git \
	mmdebstrap:mmdebstrap systemd-nspawn:systemd-container systemd-analyze:systemd dbus-daemon:dbus-daemon containerd:containerd runc:runc kubectl:kubernetes-client
# file:package
FILES := /usr/include/stdlib.h:libc6-dev /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring

.PHONY: help up add down status test lint start-time install clean

help:
	@echo 'make up          three machines from the OS image become a cluster'
	@echo 'make add         one more machine'
	@echo 'make status      how far each machine is'
	@echo 'make down        remove the machines and everything they made'
	@echo 'make test        install what is missing and run every test'
	@echo 'make lint        gofmt, go vet, staticcheck'
	@echo 'make start-time  seconds from start to three ready nodes, next to k3s started by hand'

up: install
	@$(LAB) up

add: install
	@$(LAB) add

status:
	@$(LAB) status

down:
	@$(LAB) down

test: install
	@go run ./tests/runner

lint:
	@go run ./tests/runner lint

start-time: install
	@$(LAB) start-time

install:
	@missing=; \
	for t in $(TOOLS); do command -v "$${t%%:*}" >/dev/null || missing="$$missing $${t##*:}"; done; \
	for f in $(FILES); do [ -e "$${f%%:*}" ] || missing="$$missing $${f##*:}"; done; \
	if [ -n "$$missing" ]; then \
		echo "installing$$missing"; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

# The caches of k3s and of the OS image are in build/ as well.
clean: down
	rm -rf build
