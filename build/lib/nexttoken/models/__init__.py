"""Everything that needs torch: loading, encoding, reading labels, training and answering."""
