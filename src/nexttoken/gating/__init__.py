"""When a first answer is too unsure to stand: the gate, what it would have done, and its thresholds."""
