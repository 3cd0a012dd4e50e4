# make run [IMAGE=photo.jpg]   the prompt of your picture, or of the bundled samples
# make page [PORT=7870]        the page and its routes on this machine, with the demo models chosen
# make test                    sets up what the tests need and runs all of them
# make fuzz [SECONDS=60]       feeds broken files and requests to what reads them, for longer than
#                              the tests do; what it finds is put into this folder
# make audit                   looks up whether what we ask for has known holes
# make bench [BENCH=--small]   measures the engine beside clip-interrogator, and draws how its cost
#                              grows: docs/performance.md
# make bench-batch             measures a folder of pictures beside clip-interrogator
# make bench-vocabularies      compares our word lists with the classic ones: docs/vocabularies.md
# make clean                   removes what these set up

PYTHON ?= python3
MODE ?= best
PORT ?= 7870
SECONDS ?= 60
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

.PHONY: run page test test-newest-hosts test-newest-others test-a1111 test-forge browser lint fuzz \
	audit bench bench-batch bench-vocabularies clean

run: .venv/ready
	.venv/bin/python -m clip_interrogator_ext prompt --demo --mode $(MODE) \
		$(if $(IMAGE),"$$IMAGE",$(SAMPLES))

page: .venv/page
	.venv/bin/python -m clip_interrogator_ext page --demo --port $(PORT)

# The suites side by side, each with one thread: much of their time they wait for servers and pages.
# The newest versions run all tests, in two halves.
test: lint
	OMP_NUM_THREADS=1 $(MAKE) --jobs=4 --output-sync=target \
		test-newest-hosts test-a1111 test-forge test-newest-others

test-newest-hosts: .venv/tools browser
	.venv/bin/python -m pytest -m hosts

test-newest-others: .venv/tools browser
	.venv/bin/python -m pytest -m "not hosts"

test-a1111 test-forge: test-%: .venv-%/ready browser
	.venv-$*/bin/python -m pytest -m hosts

# The page is tested in Chromium; without it those tests are skipped and say so.
browser:
	@command -v chromium >/dev/null || { apt-get -qq update && apt-get -qq install -y chromium; } \
		|| echo "Chromium is not installed: the tests of the page will be skipped."

lint: .venv/tools
	.venv/bin/ruff check .
	.venv/bin/codespell data
	.venv/bin/mypy

fuzz: .venv/tools
	.venv/bin/python tests/fuzz.py --seconds $(SECONDS)

audit: .venv/audit
	.venv/bin/pip-audit .

bench: .venv/tools
	.venv/bin/python bench/speed.py $(BENCH)
	.venv/bin/python bench/growth.py $(filter --small,$(BENCH))

bench-batch: .venv/tools
	.venv/bin/python bench/batch.py $(BENCH)

bench-vocabularies: .venv/tools
	.venv/bin/python bench/vocabularies.py $(BENCH)

.venv/ready: pyproject.toml
	$(call install,.venv,--editable .)
	touch $@

.venv/page: .venv/ready
	.venv/bin/python -m pip install --quiet --editable '.[page]'
	touch $@

.venv/tools: .venv/ready requirements/newest.txt
	.venv/bin/python -m pip install --quiet -r requirements/newest.txt
	.venv/bin/python -m pip install --quiet --no-deps clip-interrogator==0.6.0
	touch $@

.venv/audit: .venv/ready
	.venv/bin/python -m pip install --quiet pip-audit
	touch $@

.venv-%/ready: requirements/%.txt
	$(call install,.venv-$*,-r $<)
	touch $@

clean:
	rm -rf .venv .venv-a1111 .venv-forge build *.egg-info .pytest_cache .mypy_cache .ruff_cache
