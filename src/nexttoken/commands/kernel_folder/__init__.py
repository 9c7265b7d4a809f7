"""The folder of an offline notebook: what it holds, how it is built and pushed, and the steps that run in it."""
