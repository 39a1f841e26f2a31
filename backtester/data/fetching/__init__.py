"""Asking exchanges: planning, paging, the budget, the pipeline."""
