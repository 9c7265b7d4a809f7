"""One HTML file with all that the finished runs of a folder say: scores, curves, mistakes, rows, budgets."""
