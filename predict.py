"""Average a run's folds over the test rows and write a validated submissions/<name>.csv.

python predict.py                                                     the run that finished last
python predict.py run=output/lmsys/<name>
python predict.py run=output/lmsys/<name> input_dir=/kaggle/input/lmsys-chatbot-arena submissions_dir=/kaggle/working
"""

import hydra
from omegaconf import DictConfig

from nexttoken.commands import entry


@hydra.main(config_path="conf", config_name="predict", version_base="1.3")
def main(cfg: DictConfig) -> None:
    with entry.errors_on_one_line():
        from nexttoken.pipeline import predict

        predict(cfg)


if __name__ == "__main__":
    entry.run(main)
