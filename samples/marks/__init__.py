"""The embedded sample marks: generated answers with marks, tracked under input/sample-marks, to train a judge on."""
