"""Where patches lie: pure functions of seed, epoch and sample."""
