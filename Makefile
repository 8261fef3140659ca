# The two commands of a newcomer are `make demo` and `make test`; both find or fetch a nats-server.

# A failing stage of a pipe must fail the target, which plain sh cannot say.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build demo test totals lint documents deny msrv linked clients browser schemathesis image deliveries dashboard kubernetes clusters bench bench-snapshots bench-fleet faults least fuzz mutants clean

# Arguments for demo, test and bench: make demo ARGS="--seconds 20"
ARGS ?=
test_log := $(or $(CARGO_TARGET_DIR),target)/test.log

# Put before a command that needs a server. The path is absolute: cargo changes folders.
# Assigned apart from the export, for `export A=$(false)` would hide the failure.
with_nats = NATS_SERVER=$$(deploy/get-nats-server); export NATS_SERVER;

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 15

build: ## the release binary, target/release/driftgate
	cargo build --locked --release

demo: ## three sidecars and a drifting runtime, watched live
	@$(with_nats) cargo run --locked --release -- demo $(ARGS)

test: ## every test, those against a real nats-server included
	@mkdir -p $(dir $(test_log)) && rm -f $(test_log)
	@$(with_nats) status=0; \
	{ cargo test --locked --all-targets --no-fail-fast $(ARGS) && cargo test --locked --doc; } 2>&1 \
		| tee $(test_log) || status=$$?; \
	$(MAKE) --no-print-directory totals || status=1; exit $$status

# One line for all test binaries of the last run. No test at all is a failure, not a success.
totals:
	@awk '/^test result:/ { passed += $$4; failed += $$6; skipped += $$8 } \
		END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped; exit passed == 0 }' $(test_log)

lint: ## formatting, clippy and documentation, warnings are errors
	@for tool in fmt clippy; do \
		cargo $$tool --version >/dev/null 2>&1 || { \
			echo "make lint needs cargo $$tool, which is not installed: rustup component add $${tool/#fmt/rustfmt}" >&2; \
			exit 1; }; \
	done
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --locked --no-deps --document-private-items

documents: ## what is written out: config/driftgate.toml, docs/{api,configuration,conformance,metrics}.md, docs/drift.svg, deliveries in deploy/
	DRIFTGATE_WRITE_DOCUMENTS=1 cargo test --locked -q --test cli --test config --test deploy --test http --test tidy -- documents matrix

deny: ## licences, sources, bans and advisories of all that is built in
	@cargo deny --version >/dev/null 2>&1 || { \
		echo "make deny needs cargo-deny: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --locked check

# The version is Cargo.toml's; a folder of its own, for another compiler makes everything again.
msrv: ## builds with the oldest compiler that Cargo.toml declares
	@version=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml); \
	echo "rust $$version"; \
	cargo +$$version check --locked --all-targets --target-dir $(or $(CARGO_TARGET_DIR),target)/msrv

# A Python of its own with pyld, in the folder of what is built.
linked: ## a packet through an independent JSON-LD processor, fetched when there is none
	@python=target/pyld/bin/python; $$python -c 'import pyld' 2>/dev/null || { \
		python3 -m venv target/pyld && $$python -m pip install --quiet pyld==3.3.0; }; \
	DRIFTGATE_PYTHON=$$python cargo test --locked --test protocol linked_data -- --nocapture

clients: ## the clients of docs/first-hour.md against a real sidecar; a TypeScript compiler is fetched for an older Node
	@folder=target/typescript; test -x $$folder/node_modules/.bin/tsc || \
		npm install --silent --no-fund --no-audit --prefix $$folder typescript@5.9 @types/node@22; \
	$(with_nats) DRIFTGATE_TSC=$$PWD/$$folder/node_modules/.bin/tsc \
		DRIFTGATE_TYPES=$$PWD/$$folder/node_modules/@types \
		cargo test --locked --test live first_hour -- --nocapture

browser: ## the console in a headless Chromium: rise and fall, a token, a fleet of 1,000; SKIPPED without one
	@folder=target/browser; test -d $$folder/node_modules/axe-core || \
		npm install --silent --no-fund --no-audit --prefix $$folder puppeteer-core@24.43.1 axe-core@4.14.1; \
	mkdir -p $$folder/pictures; $(with_nats) cargo build --locked --quiet; \
	node tests/browser/console.mjs target/debug/driftgate $$folder $$folder/pictures

schemathesis: ## the running server against its OpenAPI document, some thousand requests; fetched when there is none
	@folder=target/schemathesis/bin; test -x $$folder/openapi-spec-validator -a -x $$folder/schemathesis || { \
		python3 -m venv target/schemathesis && $$folder/python -m pip install --quiet \
			schemathesis==4.32.5 'urllib3[zstd]==2.8.0' openapi-spec-validator==0.9.0; }; \
	$(with_nats) cargo run --locked --quiet -- schema openapi | $$folder/openapi-spec-validator -; \
	DRIFTGATE_SCHEMATHESIS=$$PWD/$$folder/schemathesis \
		cargo test --locked --test live described -- --nocapture

# Another machine's: make image ARCH=arm64 IMAGE_TARGET=aarch64-unknown-linux-musl, with its linker.
ARCH ?= amd64
IMAGE_TARGET ?= x86_64-unknown-linux-musl
image: ## the image as an archive, SBOM and provenance beside it, without a container engine
	@command -v python3 >/dev/null || { echo "make image needs python3 (3.11 or newer)" >&2; exit 1; }
	@rustup target list --installed 2>/dev/null | grep -qx $(IMAGE_TARGET) || { \
		echo "make image needs the target: rustup target add $(IMAGE_TARGET)" >&2; exit 1; }
	RUSTFLAGS="--remap-path-prefix=$$HOME=/home --remap-path-prefix=$$PWD=/build" \
		CARGO_PROFILE_RELEASE_LTO=thin CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1 \
		cargo build --locked --release --bin driftgate --target $(IMAGE_TARGET)
	@python3 deploy/image/archive.py target/$(IMAGE_TARGET)/release/driftgate target/image \
		--arch $(ARCH) --target $(IMAGE_TARGET)

# HELM and PROMTOOL name ones that are not on the path.
deliveries: ## what kubectl, helm, promtool and nats-server make of deploy/; says which are SKIPPED
	@$(with_nats) cargo test --locked --test deploy -- --nocapture 2>&1 \
		| grep -E '^(SKIPPED|test |error|.* panicked)'

dashboard: build ## the Grafana dashboard's queries on a real Prometheus, as a picture; needs prometheus
	@$(with_nats) tests/deploy/dashboard.py docs/dashboard.svg

kubernetes: image ## the deliveries on a real Kubernetes; needs root and Go, the first time some ten minutes
	@$(with_nats) tests/deploy/kubernetes/run.sh

clusters: build ## two edges and a hub, a cut link, a killed hub, a compromised edge; needs the nats command
	@export DRIFTGATE_NATS_LEAST=2.15.2; $(with_nats) tests/deploy/clusters.py $(ARGS)

bench: ## one table beside a bare NATS client in the same run; ARGS="--json", "--only NDJSON"
	@$(with_nats) cargo bench --locked --bench yardstick -- $(ARGS)

bench-snapshots: ## stored bytes, CPU and memory of snapshots; DRIFTGATE_HORIZON=RUN.jsonl for a recorded run
	@$(with_nats) cargo bench --locked --bench snapshot -- $(ARGS)

bench-fleet: ## many sidecars on one broker; ARGS="--sizes 10,100,300,1000 --seconds 20"
	@$(with_nats) cargo bench --locked --bench fleet -- $(ARGS)

faults: ## the table: fault, promise, observation, recovery; DRIFTGATE_HAMMER_SECONDS=180 for long
	@$(with_nats) cargo test --locked --no-fail-fast --test faults -- --nocapture \
		| grep -E '^(FAULT|HAMMER) |^test result:'

# What a server refuses to one of ours is printed as LEAST; refusals that a test asks for are there too.
least: ## the broker tests once more, each sidecar with the grants of `driftgate permissions` alone
	@mkdir -p $(dir $(test_log)); $(with_nats) status=0; \
	DRIFTGATE_TEST_GRANTS=least cargo test --locked --no-fail-fast --test nats --test live $(ARGS) \
		-- --nocapture > $(test_log) 2>&1 || status=$$?; \
	grep -E '^test .*FAILED|^LEAST: ' $(test_log) | sort | uniq -c; \
	$(MAKE) --no-print-directory totals || status=1; exit $$status

fuzz: ## ARGS="report -max_total_time=600", one target of tests/fuzz; findings stay in target/fuzz
	@cargo fuzz --version >/dev/null 2>&1 || { \
		echo "make fuzz needs cargo-fuzz: cargo install cargo-fuzz" >&2; exit 1; }
	@set -- $(ARGS); name=$$1; shift; mkdir -p target/fuzz/corpus/$$name target/fuzz/artifacts; \
	cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz -s none $$name \
		target/fuzz/corpus/$$name tests/fuzz/corpus/$$name -- \
		-artifact_prefix=target/fuzz/artifacts/ -max_len=65536 -timeout=20 -rss_limit_mb=1024 "$$@"

mutants: ## breaks the gate, index, seal and bridge on purpose, one way at a time: hours
	@cargo mutants --version >/dev/null 2>&1 || { \
		echo "make mutants needs cargo-mutants: cargo install cargo-mutants" >&2; exit 1; }
	cargo mutants $(ARGS)

clean: ## removes what was built and fetched
	cargo clean
	rm -rf .tools
