"""The AttFC head in a loop of one's own: ``python examples/own_loop.py``."""

import copy

import torch

from attfc_train import DynamicClassContainer, attfc_loss

NUM_IDS, SIZE, STEPS, BATCH = 100, 16, 60, 32
torch.manual_seed(0)
faces = torch.rand(NUM_IDS, 3, SIZE, SIZE)  # stands for a data set: an identity's images are its face and noise


def images_of(labels: torch.Tensor) -> torch.Tensor:
    return faces[labels] + 0.3 * torch.randn(len(labels), 3, SIZE, SIZE)


model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIZE * SIZE, 64), torch.nn.BatchNorm1d(64))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

# The head, in 20 lines.
class_encoder = copy.deepcopy(model).requires_grad_(False)  # follows the model slowly and embeds the references
container = DynamicClassContainer(NUM_IDS, slots=50, embedding_size=64)
for step in range(STEPS):
    labels = torch.randint(NUM_IDS, (BATCH,))
    queries, references = images_of(labels), images_of(labels)  # two images of every identity in the batch
    with torch.no_grad():
        for slow, fast in zip(class_encoder.parameters(), model.parameters(), strict=True):
            slow.lerp_(fast, 0.1)
        reference_features = class_encoder(references)
    loss, centers = attfc_loss(model(queries), reference_features, labels, container, margin=0.3, scale=16)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    container.enqueue(centers, labels, step)
    if step % 10 == 9:
        print(f"step {step + 1:3d}  loss {loss.item():.3f}")
