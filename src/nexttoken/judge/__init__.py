"""The judge: open runs compared by what their answers cost, share with the references, and get as marks."""
