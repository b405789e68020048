"""The embedded CoLink core; see README.md beside this file for its words and layout."""
