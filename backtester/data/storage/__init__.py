"""Candle stores, and the code that reads and writes their files."""
