"""Train one fold, score it out of fold, save it as output/<task>/<name>/fold<k>/.

python train.py fold=0                                                the embedded sample
python train.py fold=0 input_dir=input/lmsys-chatbot-arena model=llama3_8b prompt=conversation
python train.py -m fold=0,1,2,3,4                                     all folds, one after the other
python train.py fold=0 trainer.max_epochs=0                           zero-shot: no training, the same report
python train.py fold=0 debug=fast                                     a minute's rehearsal of everything
"""

import hydra
from omegaconf import DictConfig

from nexttoken.commands import entry, typed


@hydra.main(config_path="conf", config_name="train", version_base="1.3")
def main(cfg: DictConfig) -> float | None:
    return entry.run_job(lambda: train_fold(cfg))


def train_fold(cfg: DictConfig) -> float:
    from hydra.core.hydra_config import HydraConfig

    from nexttoken.pipeline import train

    overrides = typed.in_typed_order(HydraConfig.get().overrides.task)
    return train(typed.name_job(cfg), overrides, typed.job_of_sweep(cfg))


if __name__ == "__main__":
    entry.run(main)
