"""The protocol operators that are built in, run inside the core's transactions (§8, §9.9)."""
