"""The embedded sample quiz: generated, tracked under input/sample-quiz, with a corpus that answers part of it."""
