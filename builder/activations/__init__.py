"""Which texts excite a direction? Corpus, tokens and roles, hooks, accumulators, the scan."""
