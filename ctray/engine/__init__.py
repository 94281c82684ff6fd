"""The Ray shell around the core: streams, training, actor pool, whole runs."""
