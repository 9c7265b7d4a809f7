"""A prediction that ends at a deadline: its passes, slices of rows, processes, and the submission meanwhile."""
