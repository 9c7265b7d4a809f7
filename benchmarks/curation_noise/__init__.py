"""A generated Japanese instruction set with known noise: what a curation finds of it can be counted."""
