"""One file per competition: its examples, its classes and its submission format."""
