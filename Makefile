.PHONY: demo test lint format docs notebooks bench ci

demo:    ## the main job on a generated clip
	uv run prelabel run configs/demo.yaml

test:
	uv run pytest

lint:
	uv run ruff format --check .
	uv run ruff check .
	uv run mypy
	uv run lint-imports

format:
	uv run ruff format .
	uv run ruff check --fix .

docs:    ## the docs site, in site/; `uv run zensical serve` shows it while you write
	uv run python docs/make_config_tables.py
	uv run python docs/make_cli_page.py
	uv run zensical build --strict --clean
	cp docs/*.md docs/llms.txt site/
	cp docs/notebooks/*.md site/notebooks/

notebooks:   ## runs the notebooks and keeps their outputs
	uv run python docs/make_notebooks.py

bench:   ## make bench CLIP=street.mp4; takes minutes, wants a quiet machine and YOLO11n's weights
	uv run python -m benchmarks.pipeline --clip $(CLIP)
	uv run python -m benchmarks.memory --clip $(CLIP)
	uv run python -m benchmarks.labels

ci:
	.ci/run
