"""Open answers: prompts in, texts out, row by row into a journal, so that a killed run goes on where it stopped."""
