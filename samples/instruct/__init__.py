"""The embedded instruction sample: generated, tracked under input/sample-instruct, in English and Japanese."""
