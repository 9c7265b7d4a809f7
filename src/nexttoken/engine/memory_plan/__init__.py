"""What a run will need of the device's memory, found without its weights, and the settings that would need less."""
