"""Helpers that know nothing of CoLink, flows or manifests."""
