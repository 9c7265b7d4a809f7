"""A kernel run here as on Kaggle: the hidden test, the isolation, other versions, and the verdict."""
