"""One training step: a batch in, the weights updated, without a host-device sync."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssd.errors import UserError
from ssd.hardware import Hardware, check_compiler
from ssd.loading.batch_augment import augment_batch
from ssd.loading.dataset import Batch
from ssd.models.family import Criterion, Model
from ssd.params import AugmentParams, TrainParams
from ssd.processes.world import World
from ssd.structures import Targets
from ssd.training.optimizer import EMA, build_optimizer, freeze, set_training
from ssd.training.schedule import sizes_vary


class TrainStep:
    """Augments, runs and updates a network.

    Attributes:
        model: the network that is trained, on the device.
        optimizer, scaler, ema: the other state in a checkpoint; scaler is enabled only in fp16, ema is None
            without `train.ema`.
    """

    def __init__(
        self,
        model: Model,
        params: TrainParams,
        augment: AugmentParams,
        hardware: Hardware,
        world: World,
    ) -> None:
        self.params, self.augment, self.hardware, self.world = params, augment, hardware, world
        device = hardware.device
        self.memory_format = torch.channels_last if params.channels_last else torch.contiguous_format
        self.model = model.to(device).to(memory_format=self.memory_format)
        self.frozen_norms = freeze(self.model, params.freeze_stages, params.freeze_bn)
        if world.size > 1 and params.sync_bn and device.type == "cuda":
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        self.loss_settings = model.loss_settings(params)
        self._criteria: dict[int, Criterion] = {}
        self.optimizer = build_optimizer(self.model, params)
        self.scaler = torch.amp.GradScaler(device.type, enabled=hardware.dtype == torch.float16)
        self.ema = EMA(self.model, params.ema) if params.ema > 0 else None
        self.network = self._wrapped()
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self._statistics = [b for norm in norms for b in norm.buffers() if b.is_floating_point()]

    def _wrapped(self) -> Callable[..., tuple[Tensor, ...]]:
        """The network as steps call it: distributed over the processes, compiled if `train.compile`."""
        network: nn.Module = self.model
        if self.world.size > 1:
            network = DistributedDataParallel(
                network,
                device_ids=[self.hardware.device] if self.hardware.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                # A small input does not use the heads of the last levels.
                find_unused_parameters=sizes_vary(self.params),
            )
        if self.params.compile:
            check_compiler(self.hardware.device)
            network.compile()
        return network

    def criterion_at(self, side: int) -> Criterion:
        """The criterion for inputs of `side` pixels; the priors follow the size."""
        if side not in self._criteria:
            criterion = self.model.criterion(self.loss_settings, side)
            self._criteria[side] = criterion.to(self.hardware.device)
        return self._criteria[side]

    def __call__(self, batch: Batch, epoch: int, index: int, lr: float) -> Tensor:
        """Update the weights; if a loss or a gradient is not finite, the step is skipped and nothing changes.

        Args:
            batch: this process's images.
            epoch, index: of the batch, counted from 0; they determine its randomness.
            lr: learning rate, before the factor of each group.

        Returns:
            float32 [4], on the device, without a sync: the losses (total, loc, conf) over all processes, and
            1 where the step was skipped.
        """
        set_training(self.model, self.frozen_norms)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        images, targets = self._inputs(batch, epoch, index)
        criterion = self.criterion_at(images.shape[-1])
        matches = criterion.match(targets, self._key(epoch, index))
        divisor = self.world.sum_(matches.divisor)
        statistics = [value.clone() for value in self._statistics]

        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(3, device=images.device)
        micro_batches = self._micro_batches(len(images))
        for number, rows in enumerate(micro_batches):
            with self._without_exchange(last=number == len(micro_batches) - 1):
                with self.hardware.autocast():
                    outputs = self.network(images[rows], matches.rows(rows))
                part = criterion(*outputs, matches.rows(rows), divisor)
                # DistributedDataParallel averages gradients over processes, but the loss is a sum.
                self.scaler.scale(part.total * self.world.size).backward()
            losses += torch.stack([part.total, part.loc, part.conf]).detach()
        losses = self.world.sum_(losses)
        skipped = self._update(losses)
        self._restore(statistics, skipped)
        if self.ema:
            self.ema.update(self.model)
        return torch.cat([losses, skipped.view(1)])

    def _inputs(self, batch: Batch, epoch: int, index: int) -> tuple[Tensor, Targets]:
        """The batch on the device, augmented and normalised."""
        device, key = self.hardware.device, self._key(epoch, index)
        images, targets = batch.images.to(device, non_blocking=True), batch.targets.to(device)
        images, targets = augment_batch(images, targets, self.augment, key)
        return images.contiguous(memory_format=self.memory_format), targets

    def _key(self, epoch: int, index: int) -> tuple[int, ...]:
        """What determines the randomness of a step."""
        return self.params.seed, epoch, index, self.world.rank

    def _micro_batches(self, num_images: int) -> list[slice]:
        """Gradient accumulation: the rows of each micro-batch; two images at least, for batch norm."""
        number = max(min(self.params.accumulate, num_images // 2), 1)
        bounds = [num_images * part // number for part in range(number + 1)]
        return [slice(*bound) for bound in pairwise(bounds)]

    def _without_exchange(self, *, last: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged between processes once per step, with its last micro-batch."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def _update(self, losses: Tensor) -> Tensor:
        """Clip gradients and step; float32 scalar, 1 where a value is not finite and the step was skipped."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.params.clip_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.params.clip_norm, norm)
        if self.scaler.is_enabled():
            # The scaler skips steps by itself until it has found its scale; only non-finite losses count.
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return (~losses.isfinite().all()).float()
        skipped = (~(losses.isfinite().all() & norm.isfinite())).float()
        # The fused kernels read it on the device, without a sync.
        self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.optimizer.step()
        return skipped

    def _restore(self, statistics: list[Tensor], skipped: Tensor) -> None:
        """Restore the running statistics after a skipped step: one NaN would stay in them for ever."""
        if skipped.device.type == "cpu":
            if skipped:
                torch._foreach_copy_(self._statistics, statistics)
            return
        for live, before in zip(self._statistics, statistics, strict=True):
            torch.where(skipped > 0, before, live, out=live)

    def check_scale(self) -> None:
        """Stop an fp16 training whose gradients overflow at every scale. A host-device sync.

        Raises:
            UserError: the loss scale has fallen to almost 0.
        """
        if self.scaler.is_enabled() and self.scaler.get_scale() < 1e-4:
            raise UserError(
                "training stopped: gradients overflow float16 at every scale; "
                "set train.precision: bf16 or fp32, or lower train.lr"
            )

    def broadcast_batch_norm_stats(self) -> None:
        """Copy the main process's running statistics to all, so that all validate the same network."""
        if self.world.size == 1:
            return
        averaged = [] if self.ema is None else list(self.ema.model.buffers())
        for buffer in [*self.model.buffers(), *averaged]:
            if not self.world.is_main:
                buffer.zero_()
            self.world.sum_(buffer)

    def best_model(self) -> Model:
        """The model that is validated and saved: the EMA where there is one."""
        return self.ema.model if self.ema else self.model

    def state(self) -> dict[str, Any]:
        """The state that a later process needs to resume with the next step."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.model.state_dict() if self.ema else {},
            "ema_updates": self.ema.num_updates if self.ema else 0,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Resume from `state()` of an earlier process."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.model.load_state_dict(state["ema"])
            self.ema.num_updates = state["ema_updates"]
