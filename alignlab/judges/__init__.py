"""Who says which of two answers is better: a language model asked for it, under a principle of a constitution."""
