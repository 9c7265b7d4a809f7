"""Open answers: prompts in, texts out, saved row by row in a journal so that a killed run continues."""
