"""Average a run's folds over the test rows and write a validated submissions/<name>.csv.

python predict.py                                                     the run that finished last
python predict.py run=output/lmsys/<name>

On Kaggle, which wants a submission.csv:

python predict.py run=output/lmsys/<name> name=submission submissions_dir=/kaggle/working \\
    input_dir=/kaggle/input/lmsys-chatbot-arena
"""

import hydra
from omegaconf import DictConfig

from nexttoken.commands import entry


@hydra.main(config_path="conf", config_name="predict", version_base="1.3")
def main(cfg: DictConfig) -> None:
    entry.run_job(lambda: predict_rows(cfg))


def predict_rows(cfg: DictConfig) -> None:
    from nexttoken.pipeline import predict

    predict(cfg)


if __name__ == "__main__":
    entry.run(main)
