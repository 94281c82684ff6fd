"""URLs and the bytes behind them: local files, S3, and whatever fsspec knows."""
