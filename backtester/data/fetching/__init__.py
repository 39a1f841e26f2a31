"""Fetching from exchanges: planning, paging, rate limits, the pipeline."""
