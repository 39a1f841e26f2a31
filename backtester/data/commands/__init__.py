"""The commands of `vbt-data` that outgrew `cli`, which puts all of them together."""
