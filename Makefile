# Everything a person or CI types. `make setup` needs Python 3.11+, git and make only; what else a target needs, it installs.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
SERVICES := ingest preprocess reconstruct scheduler web
EDITABLE := -e .[compute,agent,cli] $(foreach s,$(SERVICES),-e services/$(s)) --group dev

.PHONY: help setup demo test test-system simulate-faults lint format protos web web-check pin bench clean
help:          ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

setup: $(STAMP) ## create .venv with every pinned dependency
$(STAMP): pyproject.toml constraints.txt bootstrap.txt $(wildcard services/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Frazil needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "Could not create a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r bootstrap.txt
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt $(EDITABLE)
	@touch $(STAMP)

demo: setup    ## simulated microscope to 2D classes, live in the browser (ONCE=1: end when the last result is in)
	$(BIN)/frazil demo $(if $(ONCE),--once,)

test: setup    ## unit, model, conformance and integration tests: no root, engine or browser
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal \
	  -m "not gpu and not nvrtc and not docker and not browser and not system and not long" $(ARGS)

test-system: setup ## tests with containers, a browser, servers and NVRTC
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt --group cuda
	$(BIN)/python -m pytest -m "not gpu and not long and (nvrtc or docker or browser or system)" $(ARGS)

test-long: setup ## what takes many minutes: a death at every failpoint, real Slurm, real Kubernetes API
	$(BIN)/python -m pytest -m "long and not gpu" $(ARGS)

simulate-faults: setup ## simulated days of faults, SEEDS of them from FIRST on; a failing seed prints its trace
	PYTHONPATH=tests $(BIN)/python -m simulation --seeds $(or $(SEEDS),50) --first $(or $(FIRST),0)

lint: setup    ## formatting, types, import contracts, protos, generated stubs unchanged
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src services/*/frazil_*
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(MAKE) protos
	@git diff --exit-code --stat -- src/frazil/api || { echo "src/frazil/api is not what the protos generate: run make protos and commit"; exit 1; }

format: setup  ## apply the formatter and the safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: setup  ## regenerate src/frazil/api from protos/
	find src/frazil/api -name '*_pb2*' -delete
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=src --grpc_python_out=src --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --mypy_out=quiet:src --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:src $$(find protos -name '*.proto' | LC_ALL=C sort)

web:           ## rebuild the page (needs node and npm)
	cd services/web/ui && npm ci && npm run build

web-check:     ## types and tests of the page, and that the committed dist/ is what the sources build
	cd services/web/ui && npm ci --no-audit --no-fund && npm run check && npm run build
	@git diff --exit-code --stat -- services/web/frazil_web/dist || { echo "services/web/frazil_web/dist is not what the sources build: run make web and commit"; exit 1; }

pin: setup     ## renew constraints.txt and bootstrap.txt
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --all-extras --group dev --group cuda \
	  pyproject.toml $(foreach s,$(SERVICES),services/$(s)/pyproject.toml) --no-emit-package frazil -o constraints.txt
	echo 'uv==0.13.9' | $(BIN)/uv pip compile --generate-hashes --no-annotate --no-header - -o bootstrap.txt

bench: setup   ## benchmarks, as ratios
	for b in benchmarks/*.py; do case $$b in */gpu_*) ;; *) $(BIN)/python $$b || exit 1;; esac; done

clean:         ## remove what the targets made
	rm -rf $(VENV) demo .system build
