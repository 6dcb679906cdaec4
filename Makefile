# make reproduce   install, run every notebook on embedded data, and write the report
# make site        install and build the pages: build/site
# make test        install and run everything CI runs
# The plain commands behind each target stand in docs/usage.md.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install reproduce test tests lint site notebooks benchmarks evidence-cifar evidence-cpu evidence-gpu clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet -e '.[notebooks,test,docs]'
	touch $@

reproduce: install
	$(BIN)/python -m dhm notebook all
	$(BIN)/python -m dhm report

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Everything as pages to read: build/site/index.html.
site: install
	$(BIN)/python docs/site/build.py

# Small networks gain nothing from a second thread. One process that has no tests left takes over some of the other's; the
# notebooks fill the time in which tests wait for what they have started. A third process with tests gains nothing.
test: install
	$(MAKE) -j 2 --output-sync=line lint site
	$(MAKE) -j 2 tests notebooks

tests: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Every notebook on a handful of images, its kernel forked (dhm/kernels.py); outputs that no preset changes must equal the
# committed ones.
NBVAL = $${TMPDIR:-/tmp}/dhm-nbval
notebooks: install
	rm -rf $(NBVAL)
	OMP_NUM_THREADS=1 DHM_PRESET=smoke DHM_RUNS=$(NBVAL) DHM_FIGURES=$(NBVAL)/figures JUPYTER_DEFAULT_PROVISIONER_NAME=dhm-forked \
		$(BIN)/python -m pytest --nbval --nbval-cell-timeout=600 notebooks

benchmarks: install
	$(BIN)/python benchmarks/table.py

# Protocol: data/records/README.md. WORKERS processes share the grid; stop and start at will. DHM_DATA holds cifar100 (or
# cifar-100-python) and tiny-imagenet-100. On a GPU (evidence-gpu, evidence-cifar DEVICE=cuda) steps are captured, and four
# processes at once fill it if NVIDIA's MPS runs: nvidia-cuda-mps-control -d.
DEVICE ?= cpu
WORKERS ?= $(if $(filter cuda,$(DEVICE)),4,2)
share = for worker in $$(seq $(WORKERS)); do ($(1)) & workers="$$workers $$!"; done; for worker in $$workers; do wait $$worker || exit 1; done
ON_GPU := --accelerator cuda --compile
CIFAR := OMP_NUM_THREADS=1 nice -n 19 $(BIN)/python -m dhm train --preset paper --arch resnet32 --experiment table1 \
	--method baseline dhm dsl --seed 0 1 2 3 4 --precision auto $(if $(filter cuda,$(DEVICE)),$(ON_GPU),--accelerator cpu)
EVIDENCE := $(BIN)/python -m dhm train --dataset tiny-imagenet-100 --image-size 32 --method baseline dsl dhm --seed 0 1 2 3 4
CPU_RUNS := OMP_NUM_THREADS=1 $(EVIDENCE) --accelerator cpu --precision bf16-mixed --classes 20 --train-per-class 250 --test-on val+rest \
	--arch cifar_resnet --options depth=20 --batch-size 64 --lr 0.1 --momentum 0.9 --weight-decay 1e-4 --gamma 0.1
CORRUPT := $(CPU_RUNS) --experiment c1-corrupt-labels --label-noise 0.5 --epochs 80 --milestones 40 60
CLEAN := $(CPU_RUNS) --experiment c2-clean-labels --epochs 160 --milestones 80 120
GPU_RUNS := OMP_NUM_THREADS=1 $(EVIDENCE) --preset paper --precision auto $(ON_GPU)
SMALL_IMAGES := for arch in resnet32 densenet40_12 wrn16_8; do $(GPU_RUNS) --arch $$arch --experiment g-$$arch || exit 1; done
LARGE_IMAGES := $(GPU_RUNS) --arch resnet18 --image-size 64 --augment crop --batch-size 128 --epochs 164 --milestones 81 122 \
	--experiment g-resnet18

evidence-cifar: install
	$(call share,$(CIFAR))

evidence-cpu: install
	$(call share,$(CORRUPT) && $(CLEAN))

evidence-gpu: DEVICE = cuda
evidence-gpu: install
	$(call share,$(SMALL_IMAGES); $(LARGE_IMAGES))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
