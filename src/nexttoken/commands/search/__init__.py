"""A search of settings by Optuna: `python train.py -m sweep=search`."""
