"""The places that show a run's metrics besides metrics.jsonl, which is the record."""
