"""Candles from an exchange's bulk archives: what to take from them, reading and checking it."""
