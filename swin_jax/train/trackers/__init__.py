"""Where a run's metrics are shown besides metrics.jsonl, which is the record."""
