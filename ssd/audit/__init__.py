"""The annotations that a model contradicts most: which, how much, and as files for whoever corrects them."""
