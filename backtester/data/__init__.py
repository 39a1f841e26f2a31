"""See `backtester.data.fetching.data_fetcher` for the front door."""
