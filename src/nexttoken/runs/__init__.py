"""The run folder: every file of it is written and read here, and a finished run answers questions again."""
