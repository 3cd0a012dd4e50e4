# make run [IMAGE=photo.jpg]   the prompt of your picture, or of the bundled samples
# make test                    sets up what the tests need and runs all of them
# make clean                   removes what these set up

PYTHON ?= python3
MODE ?= best
export IMAGE
SAMPLES := $(wildcard clip_interrogator_ext/models/demo/pictures/*)

# torch first and torchvision without its dependencies: otherwise open_clip_torch, which asks for
# torchvision, may bring a torch of its own choice.
define install
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet torch==2.13.0
	$(1)/bin/python -m pip install --quiet --no-deps torchvision==0.28.0
	$(1)/bin/python -m pip install --quiet $(2)
endef

.PHONY: run test test-newest test-hosts lint clean

run: .venv/ready
	.venv/bin/python -m clip_interrogator_ext prompt --demo --mode $(MODE) \
		$(if $(IMAGE),"$$IMAGE",$(SAMPLES))

test: lint test-hosts test-newest

test-newest: .venv/tools
	.venv/bin/python -m pytest

test-hosts: .venv-a1111/ready .venv-forge/ready
	.venv-a1111/bin/python -m pytest -m hosts
	.venv-forge/bin/python -m pytest -m hosts

lint: .venv/tools
	.venv/bin/ruff check .
	.venv/bin/mypy

.venv/ready: pyproject.toml
	$(call install,.venv,--editable .)
	touch $@

.venv/tools: .venv/ready requirements/newest.txt
	.venv/bin/python -m pip install --quiet -r requirements/newest.txt
	.venv/bin/python -m pip install --quiet --no-deps clip-interrogator==0.6.0
	touch $@

.venv-%/ready: requirements/%.txt
	$(call install,.venv-$*,-r $<)
	touch $@

clean:
	rm -rf .venv .venv-a1111 .venv-forge build *.egg-info .pytest_cache .mypy_cache .ruff_cache
