# Two commands set everything up on a fresh Debian 12: `make up` and `make test`.

DATA_DIR ?= /var/lib/skiff
SKIFF    := target/release/skiff
PACKAGES := containerd runc nftables iproute2 kmod make gcc pkg-config docker-registry curl

.PHONY: help up down build images test verify packages install bench

help:
	@echo "make up       install what is needed, build, start a cluster, wait until it is ready"
	@echo "make down     stop the cluster and leave nothing of it in the kernel"
	@echo "make images   build the image archives of the sample website (dist/images)"
	@echo "make test     check and test everything"
	@echo "make bench    measure speed and memory beside the budgets"
	@echo "make install  put skiff into /usr/local/bin"

up: packages build images
	@$(SKIFF) up --detach --data-dir $(DATA_DIR)
	@$(SKIFF) image --data-dir $(DATA_DIR) import dist/images/website-*.tar
	@echo
	@echo "Next:"
	@echo "  export KUBECONFIG=$(DATA_DIR)/admin.kubeconfig"
	@echo "  kubectl get nodes"
	@echo "  kubectl apply -f examples/website/1.0.0.yaml"
	@echo "  kubectl rollout status deploy/website"
	@echo "  curl http://127.0.0.1:30080/"

down:
	@$(SKIFF) down --data-dir $(DATA_DIR)

# The tool that makes images is built along: alone it would compile half of the dependencies anew.
build:
	cargo build --release --package skiff --package xtask --features skiff/jemalloc

images: build
	target/release/xtask images

# What only tests need.
test: PACKAGES += etcd-server busybox-static python3-pip

test: packages
	cargo xtask test

verify:
	cargo xtask verify

bench: packages build images
	cargo xtask bench up
	cargo xtask bench idle
	cargo xtask bench pods
	cargo xtask bench api

install: build
	install -m 0755 $(SKIFF) /usr/local/bin/skiff

# Installs the Debian packages that are missing; silent when none is. Debian starts some of them as
# services, which skiff does not need: it runs a containerd of its own.
packages:
	@missing=""; for package in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	  echo "installing$$missing"; \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
