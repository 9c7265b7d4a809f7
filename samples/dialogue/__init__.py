"""The embedded dialogue sample: generated, tracked under input/sample-dialogue; a philosopher who asks back."""
