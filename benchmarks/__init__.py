"""The benchmark suite: honest timings of every op beside its peers and the machine's limits."""
