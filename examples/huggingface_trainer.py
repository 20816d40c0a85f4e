"""A search with Hugging Face's ``Trainer``, through its own ``hyperparameter_search``.

``ScheduleTrainer`` is a ``Trainer`` that builds the schedule of each trial. The model is tiny and
starts from random weights, so nothing is downloaded.

    pip install "lrsearch[transformers]"
    python examples/huggingface_trainer.py
"""

import optuna
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset
from transformers import TrainingArguments, ViTConfig, ViTForImageClassification

import lrsearch
from lrsearch.integrations.transformers import ScheduleTrainer, eval_loss, hp_space

EPOCHS = 3
pixels, labels = load_digits(return_X_y=True)


class Digits(Dataset):
    """Images of digits, 8x8."""

    def __init__(self, rows: slice) -> None:
        self.x = torch.tensor(pixels[rows], dtype=torch.float32).view(-1, 1, 8, 8) / 16
        self.y = torch.tensor(labels[rows])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"pixel_values": self.x[i], "labels": self.y[i]}


def model_init() -> ViTForImageClassification:
    """A tiny model with random weights."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "image_size": 8, "patch_size": 2, "num_channels": 1}
    return ViTForImageClassification(ViTConfig(**sizes, num_labels=10))


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trainer = ScheduleTrainer(
        model_init=model_init,
        args=TrainingArguments(
            "huggingface",
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=200,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            log_level="error",
        ),
        train_dataset=Digits(slice(0, 1200)),
        eval_dataset=Digits(slice(1200, 1400)),
    )
    storage = lrsearch.open_storage("sqlite:///lrsearch.db")
    trainer.hyperparameter_search(
        hp_space(trainer, lr=(1e-3, 1e-2)),
        compute_objective=eval_loss,
        n_trials=3,
        direction="minimize",
        backend="optuna",
        study_name="huggingface",
        storage=storage,
        load_if_exists=True,
        sampler=lrsearch.TraceSampler(),
        pruner=lrsearch.SchedulePruner(),
    )
    print(lrsearch.report("huggingface"))
