"""What every backbone must do; a test class inherits `BackboneContract` and sets the attributes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from attfc_train.backbones.channels_last import lay_channels_last
from attfc_train.backbones.kinds import Checkpointing, build_backbone

CPU = torch.device("cpu")


class BackboneContract:
    name: str
    size = 32
    embedding_size = 16

    @pytest.fixture(autouse=True)
    def _one_thread(self) -> Iterator[None]:
        """Threads cost more than they bring at these sizes."""
        former = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(former)

    def build(self, seed: int = 0, **changes: object) -> nn.Module:
        torch.manual_seed(seed)
        options = {"embedding_size": self.embedding_size, "image_size": self.size}
        options |= {"gradient_checkpointing": False, "device": CPU}
        return build_backbone(self.name, **(options | changes))

    def images(self, num: int = 4) -> Tensor:
        return torch.rand(num, 3, self.size, self.size, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def test_output_is_float32_and_not_normalised(self) -> None:
        embeddings = self.build()(self.images())
        assert (embeddings.shape, embeddings.dtype) == ((4, self.embedding_size), torch.float32)
        assert not torch.allclose(embeddings.norm(dim=1), torch.ones(4))

    def test_other_sizes(self) -> None:
        embeddings = self.build(image_size=48, embedding_size=8)(torch.zeros(2, 3, 48, 48))
        assert embeddings.shape == (2, 8)

    def test_every_trainable_parameter_gets_a_gradient(self) -> None:
        encoder = self.build()
        encoder(self.images()).square().sum().backward()
        without = [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
        assert without == []

    def test_same_seed_same_network(self) -> None:
        first, second = self.build(seed=3).state_dict(), self.build(seed=3).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)

    def test_autocast_keeps_the_last_layers_in_float32(self) -> None:
        encoder = self.build()
        outputs: dict[int, torch.dtype] = {}
        weighted = [module for module in encoder.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for place in (0, -1):
            weighted[place].register_forward_hook(lambda _, __, out, place=place: outputs.__setitem__(place, out.dtype))
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder(self.images())
        assert outputs == {0: torch.bfloat16, -1: torch.float32}
        assert embeddings.dtype == torch.float32

    @pytest.mark.parametrize("checkpointing", [False, True, "wide"])
    @pytest.mark.parametrize("autocast", [False, True])
    def test_runs_on_fake_tensors(self, checkpointing: Checkpointing, autocast: bool) -> None:
        with FakeTensorMode(allow_fallback_kernels=False):
            encoder = self.build(gradient_checkpointing=checkpointing)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                embeddings = encoder(torch.zeros(4, 3, self.size, self.size))
            embeddings.sum().backward()
            assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
        assert embeddings.dtype == torch.float32

    @pytest.mark.parametrize("checkpointing", [True, "wide"])
    def test_checkpointing_changes_no_result_gradient_or_buffer(self, checkpointing: Checkpointing) -> None:
        plain, recomputing = self.build(), self.build(gradient_checkpointing=checkpointing)
        for _ in range(2):
            for encoder in (plain, recomputing):
                encoder(self.images()).square().mean().backward()
        for (name, expected), actual in zip(plain.named_buffers(), recomputing.buffers(), strict=True):
            assert torch.equal(actual, expected), name
        for (name, expected), actual in zip(plain.named_parameters(), recomputing.parameters(), strict=True):
            if expected.requires_grad:
                torch.testing.assert_close(actual.grad, expected.grad, msg=name)

    def test_checkpointing_keeps_less_for_the_backward_pass(self) -> None:
        kept = []
        for checkpointing in (False, "wide", True):
            encoder, storages = self.build(gradient_checkpointing=checkpointing), {}
            ours = {p.untyped_storage().data_ptr() for p in [*encoder.parameters(), *encoder.buffers()]}

            def pack(tensor: Tensor, storages: dict[int, int] = storages, ours: set[int] = ours) -> Tensor:
                if tensor.untyped_storage().data_ptr() not in ours:
                    storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                output = encoder(self.images())
            kept.append(sum(storages.values()))
            del output
        assert kept[2] < kept[1] < 0.85 * kept[0]
        assert kept[2] < 0.7 * kept[0]

    @pytest.mark.parametrize("checkpointing", [False, True, "wide"])
    def test_a_biased_running_variance_is_the_batchs_own(self, checkpointing: Checkpointing) -> None:
        """Catches a layer that keeps torch's, one that another pass changes, and an output that is no longer the same."""
        torchs, biased = self.build(), self.build(gradient_checkpointing=checkpointing, batchnorm_variance="biased")
        inputs: dict[str, Tensor] = {}
        for name, module in torchs.named_modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.register_forward_pre_hook(lambda _, given, name=name: inputs.__setitem__(name, given[0].detach()))
        outputs = [encoder(self.images()) for encoder in (torchs, biased)]
        assert torch.equal(*outputs)
        outputs[1].square().sum().backward()
        buffers = dict(biased.named_buffers())
        assert inputs
        for name, given in inputs.items():
            dims = [dim for dim in range(given.ndim) if dim != 1]
            expected = 0.9 + 0.1 * given.var(dims, correction=0)
            torch.testing.assert_close(buffers[f"{name}.running_var"], expected, msg=name)
            torch.testing.assert_close(buffers[f"{name}.running_mean"], 0.1 * given.mean(dims), msg=name)
            assert buffers[f"{name}.num_batches_tracked"] == 1

    @pytest.mark.parametrize("checkpointing", [False, True, "wide"])
    def test_channels_last_changes_nothing_but_the_order_in_memory(self, checkpointing: Checkpointing) -> None:
        """Catches a layer that turns images back: from there on nothing would be gained."""
        apart, last = self.build(), self.build(gradient_checkpointing=checkpointing)
        lay_channels_last(last)
        turned: dict[str, bool] = {}
        for name, module in last.named_modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(
                    lambda _, given, name=name: turned.__setitem__(name, given[0].stride(1) == 1 or given[0].shape[1] == 1)
                )
        outputs = [encoder(self.images()) for encoder in (apart, last)]
        torch.testing.assert_close(*outputs, rtol=1e-3, atol=1e-4)
        assert [name for name, is_turned in turned.items() if not is_turned] == []
        for output in outputs:
            output.square().mean().backward()
        for (name, expected), actual in zip(apart.named_parameters(), last.parameters(), strict=True):
            if expected.requires_grad:
                torch.testing.assert_close(actual.grad, expected.grad, rtol=1e-2, atol=1e-4, msg=name)

    def test_inference_changes_nothing(self) -> None:
        encoder = self.build(gradient_checkpointing=True).eval()
        before = {key: value.clone() for key, value in encoder.state_dict().items()}
        with torch.inference_mode():
            alone, together = encoder(self.images()[:1]), encoder(self.images())
        torch.testing.assert_close(alone, together[:1], rtol=1e-4, atol=1e-4)
        assert all(torch.equal(before[key], value) for key, value in encoder.state_dict().items())


def millions_and_giga_macs(name: str, embedding_size: int = 512, size: int = 112) -> tuple[float, float]:
    """Parameters / 1e6, and multiply-accumulates of one image / 1e9, without memory or computation."""
    parameters, macs = parameters_and_macs(name, embedding_size, size)
    return parameters / 1e6, macs / 1e9


def parameters_and_macs(name: str, embedding_size: int = 512, size: int = 112) -> tuple[int, int]:
    """Parameters, and multiply-accumulates of one image, of convolutions and matrix products, without memory or computation."""
    with FakeTensorMode(allow_fallback_kernels=False), torch.no_grad():
        encoder = build_backbone(
            name, embedding_size=embedding_size, image_size=size, gradient_checkpointing=False, device=CPU
        ).eval()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(1, 3, size, size))
    return sum(p.numel() for p in encoder.parameters()), counter.get_total_flops() // 2
