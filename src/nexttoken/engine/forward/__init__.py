"""The forward pass: packed or padded rows, prefix caching, and only the outputs that are used."""
