"""URLs and the bytes behind them: local files, S3, and every store that fsspec knows."""
