"""Cached facts about exchanges, and how they are fetched.

`cache_manager` and `data_fetcher` are ready-made objects. The first hides the
module of its name: import the class with ``from ….cache_manager import CacheManager``.
"""

from backtester.data.cache_system.cache_manager import CacheManager
from backtester.data.cache_system.metadata_fetcher import MetadataFetcher

__all__ = ["cache_manager", "data_fetcher"]

cache_manager = CacheManager()
data_fetcher = MetadataFetcher(cache_manager)
