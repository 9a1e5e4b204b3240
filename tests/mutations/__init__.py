"""Ways to break the library, each of which a test must notice: `run.py` tries them, `mutations.toml` lists them."""
