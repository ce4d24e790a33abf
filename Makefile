# `make book` and `make test` are the two commands; `make help` lists the others.
# All of them work in a virtual environment of their own and set it up first.

VENV        ?= .venv
BIN         := $(VENV)/bin
PY          := $(BIN)/python
PORT        ?= 8000
PYTEST_ARGS ?=
# The newest Python found; name another with `make PYTHON=/path/to/python3.12`.
PYTHON      ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
# The tested set of versions. `make test CONSTRAINTS=` takes the newest instead,
# and so does a Python that is older than the tested set knows.
CONSTRAINTS ?= constraints.txt

PIP := $(PY) -m pip install -qq --disable-pip-version-check
PIN  = $(if $(CONSTRAINTS),$$($(PY) -c 'import sys; print("-c $(CONSTRAINTS)" if sys.version_info >= (3, 11) else "")'))
LOG := book/_build/build.log
BUILD := $(BIN)/jupyter-book build -W -n --keep-going book/

.DEFAULT_GOAL := help
.PHONY: help book test serve record record-all lint diffs pdf clean repository

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
	  awk -F ':.*## ' '{ printf "  make %-11s %s\n", $$1, $$2 }'

book: $(VENV)/.book-ready  ## build the site, warnings as errors, and say where to open it
	@mkdir -p book/_build
	@$(BUILD) > $(LOG) 2>&1 || { $(PY) tools/build_errors.py $(LOG) >&2; exit 1; }
	@echo "The book is built. Open it with a browser:"
	@echo "  file://$(abspath book/_build/html/index.html)"
	@echo "or run 'make serve' and open http://localhost:$(PORT)/ (search needs no server)."

test: $(VENV)/.test-ready  ## run all tests: units, every notebook in quick mode, the site in a browser
	@$(BIN)/pytest $(PYTEST_ARGS)

serve: book  ## build the site and serve it at http://localhost:8000 (PORT=...)
	@$(PY) -m http.server --bind 127.0.0.1 --directory book/_build/html $(PORT)

record: $(VENV)/.test-ready  ## run a chapter from top to bottom, keep its outputs: CHAPTER=residual/resnet
	@test -n "$(CHAPTER)" || { echo "Name the chapter: make record CHAPTER=residual/resnet" >&2; exit 2; }
	@$(BIN)/nbs record $(CHAPTER)

# NBS names the command where an environment is there already and no network is.
record-all: $(if $(NBS),,$(VENV)/.test-ready)  ## record every chapter whose code changed: ALL=1 for all, ARCHIVE=file.tar.gz
	@$(or $(NBS),$(BIN)/nbs) record --all $(if $(ALL),--every) $(if $(ARCHIVE),--archive "$(ARCHIVE)")

lint: $(VENV)/.test-ready  ## check style and format of code and notebooks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

diffs: $(VENV)/.test-ready  ## let git show changes of notebooks cell by cell, in this clone (nbdime)
	@$(BIN)/python -m nbdime config-git --enable
	@# By their full names: git finds them where the environment is not active.
	@git config diff.jupyternotebook.command "$(abspath $(BIN))/git-nbdiffdriver diff"
	@git config merge.jupyternotebook.driver "$(abspath $(BIN))/git-nbmergedriver merge %O %A %B %L %P"
	@echo "git diff and git merge now read notebooks; undo with: $(BIN)/python -m nbdime config-git --disable"

pdf: $(VENV)/.book-ready  ## print the whole book to book/_build/pdf/book.pdf (needs Chromium)
	@$(PY) tools/pdf.py

clean:  ## remove what builds leave behind (the environment and the data stay)
	@rm -rf book/_build build dist .pytest_cache .ruff_cache
	@find . -path ./$(VENV) -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

repository: $(VENV)/.python  ## write the repository's address everywhere: URL=https://github.com/me/book
	@test -n "$(URL)" || { echo "Give the address: make repository URL=https://github.com/me/book" >&2; exit 2; }
	@$(PY) tools/repository.py "$(URL)" $(if $(PAGES),--pages "$(PAGES)")

# Set-up. A stamp is older than the file it depends on only after that file
# changed, so a second `make` goes straight to work.
$(VENV)/.python:
	@test -n "$(PYTHON)" || { \
	  echo "This book needs Python 3.10 or newer, and none was found on the PATH." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit("This book needs Python 3.10 or newer, and $(PYTHON) is " + v + ". Name another: make PYTHON=/path/to/python3.12" if sys.version_info < (3, 10) else 0)'
	@$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv $(VENV) || { \
	  echo "Python could not make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.book-ready: $(VENV)/.python requirements/book.txt $(CONSTRAINTS)
	@echo "Setting up the book's tools in $(VENV) ..."
	@$(PIP) -r requirements/book.txt $(PIN)
	@touch $@

$(VENV)/.test-ready: $(VENV)/.book-ready pyproject.toml requirements/test.txt requirements/reference.txt requirements/onnx.txt requirements/peers.txt
	@echo "Setting up the package and its tests in $(VENV) (torch is large, this takes minutes) ..."
	@$(PIP) -e '.[book,test]' $(PIN)
	@# The one place where d2l comes in; its own pins must not reach us.
	@$(PIP) --no-deps -r requirements/peers.txt
	@touch $@
