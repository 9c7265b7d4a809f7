"""Bad input by the thousand: a target for each kind of input, under one rule."""
