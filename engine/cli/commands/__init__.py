"""The commands, grouped by what they are about; `engine.cli.application` puts them together."""
