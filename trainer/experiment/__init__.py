"""A small matrix of runs, variants x data x seeds, that ends in one table with intervals."""
