"""What goes through the model, and what does not: rows packed or padded, beginnings that are read once, few outputs."""
