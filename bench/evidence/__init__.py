"""The replays behind docs/evidence.md: data, settings, seeds; run by `python -m bench.evidence`."""
