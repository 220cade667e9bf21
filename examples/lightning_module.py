"""The AttFC head in a LightningModule: ``pip install lightning``, then ``python examples/lightning_module.py``."""

import copy

import lightning
import torch
from torch.utils.data import DataLoader, TensorDataset

from attfc_train import DynamicClassContainer, attfc_loss

NUM_IDS, SIZE = 100, 16


class FaceModule(lightning.LightningModule):
    """A network, its momentum copy, and the container; Lightning moves and saves all three."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 64), torch.nn.BatchNorm1d(64))
        self.class_encoder = copy.deepcopy(self.model).requires_grad_(False)
        self.container = DynamicClassContainer(NUM_IDS, slots=50, embedding_size=64)

    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        queries, references, labels = batch
        with torch.no_grad():
            for slow, fast in zip(self.class_encoder.parameters(), self.model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
            reference_features = self.class_encoder(references)
        loss, self.centers = attfc_loss(self.model(queries), reference_features, labels, self.container, margin=0.3, scale=16)
        self.labels = labels
        self.log("loss", loss, prog_bar=True)
        return loss

    def on_train_batch_end(self, *_: object) -> None:
        self.container.enqueue(self.centers, self.labels, self.global_step)  # after the optimiser's step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)


if __name__ == "__main__":
    torch.manual_seed(0)
    labels = torch.arange(NUM_IDS).repeat_interleave(10)
    faces = torch.rand(NUM_IDS, 3, SIZE, SIZE)[labels]  # stands for a data set: an identity's images are its face and noise
    queries, references = (faces + 0.3 * torch.randn_like(faces) for _ in range(2))
    data = DataLoader(TensorDataset(queries, references, labels), batch_size=32, shuffle=True)
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(FaceModule(), data)
    print(f"loss {float(trainer.callback_metrics['loss']):.3f}")
