# The project's tasks; plain `make` lists them. They run in the active virtual environment, and
# .ci/run runs the same ones, so that CI and a developer never check different things.
#
# Why make: the tasks are names for a few command lines. make is on nearly every Linux and macOS
# machine or one system package away, and it adds nothing to the Python environment, which is what
# the tasks install. Nothing here depends on file times: every task is phony.
#
# What the tasks build goes to $(BUILD), which git ignores: `make BUILD=/tmp/here wheel`.
BUILD = build

.PHONY: help install test long lint format types docs methods wheel third-party smoke check ci
.NOTPARALLEL:

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' Makefile

install: ## install the project with all that its tests and tasks can use
	python -m pip install -e '.[dev,docs,tensorboard,mlflow,wandb,ray,privacy,timm,tune,pandas,hf]'

test: ## run the tests but for the long ones
	python -m pytest

long: ## run the long tests: pairs of methods and plugins, each against the kit, notebooks
	@echo '== all methods and plugins, and their pairs'
	python -m pytest -m long

lint: ## check with ruff: lint and format
	@echo '== lint'
	python -m ruff check .
	python -m ruff format --check .

format: ## apply ruff's fixes and format
	python -m ruff check --fix .
	python -m ruff format .

types: ## check types with mypy, strict
	@echo '== types'
	python -m mypy

docs: ## build the documentation site; a warning is an error
	@echo '== documentation'
	python -m sphinx -W --keep-going -n -q docs $(BUILD)/docs

methods: ## write the README's table of methods, with measured columns, in minutes
	python docs/_ext/methods_table.py

wheel: ## build the wheel, and install it away from the source tree
	@echo '== the wheel, installed away from the source tree'
	rm -rf $(BUILD)/dist $(BUILD)/site
	python -m pip wheel -q --no-deps -w $(BUILD)/dist .
	python -m pip install -q --no-deps --target $(BUILD)/site $(BUILD)/dist/*.whl

third-party: wheel ## install, test and run third-party packages alongside the wheel
	@echo '== third-party packages and those of `fedbench new`, alongside the wheel'
	bash .ci/third_party $(BUILD)

smoke: wheel ## make short real runs from the wheel and check their results
	@echo '== short real runs from the wheel'
	bash .ci/smoke $(BUILD)

check: lint types docs test ## what to run before a pull request; ci does more

ci: ## everything from scratch in a new virtual environment, as CI does
	bash .ci/run
