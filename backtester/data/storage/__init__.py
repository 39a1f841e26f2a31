"""Keeping candles: stores and what reads and writes their files."""
