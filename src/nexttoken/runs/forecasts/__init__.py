"""The forecast of a prediction: time, memory and disk, by a trial here or by the sheet of a device."""
