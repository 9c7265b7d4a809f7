"""Forward passes: batches, heads, label scores, losses of texts, generation, and the memory plan."""
