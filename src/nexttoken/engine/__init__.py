"""What goes through a model: label scores, losses of texts, batches, generation, and the memory plan."""
