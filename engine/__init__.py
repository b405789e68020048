"""colink-engine: serve flows over CoLink, declared in YAML."""
