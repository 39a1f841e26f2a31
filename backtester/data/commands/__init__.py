"""The commands of `vbt-data` that have a module of their own; `cli` puts them together."""
