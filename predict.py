"""Average a run's folds over the test rows and write a validated submissions/<name>.csv.

python predict.py                                                     the run that finished last
python predict.py run=output/lmsys/<name>
python predict.py run=output/lmsys/<name> within=8h30m                ends in time; a valid file is there from the start

On Kaggle, which wants a submission.csv:

python predict.py run=output/lmsys/<name> name=submission submissions_dir=/kaggle/working \\
    input_dir=/kaggle/input/lmsys-chatbot-arena
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from nexttoken.commands import entry, typed
from nexttoken.commands.terminal import ending_at_once


@hydra.main(config_path="conf", config_name="predict", version_base="1.3")
def main(cfg: DictConfig) -> None:
    with ending_at_once(cfg.within is not None and HydraConfig.get().mode != RunMode.MULTIRUN):
        entry.run_job(lambda: predict_rows(cfg))


def predict_rows(cfg: DictConfig) -> None:
    from nexttoken.pipeline import predict

    predict(cfg, typed.job_of_sweep(cfg))


if __name__ == "__main__":
    entry.run(main)
