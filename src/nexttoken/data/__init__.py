"""Files in, rows out: tables and JSON lines with every check, texts as words and sentences, and leak-free folds."""
