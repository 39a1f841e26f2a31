"""Candles of crypto exchanges as VectorBT data: fetched whole, cached, checked."""
