"""The processes that train together: one on a laptop, many under `torchrun`.

Imported only inside functions, because it imports torch.
"""

import os
from dataclasses import dataclass

import torch  # noqa: TID253
import torch.distributed as dist  # noqa: TID253
from torch import Tensor  # noqa: TID253


@dataclass(frozen=True)
class Ranks:
    rank: int
    world: int
    device: torch.device

    @classmethod
    def join(cls) -> "Ranks":
        """Join the process group that torchrun announces in the environment, if it announces one."""
        world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", local) if cuda else torch.device("cpu")
        if cuda:
            torch.cuda.set_device(device)
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
        return cls(int(os.environ.get("RANK", "0")), world, device)

    @classmethod
    def alone(cls) -> "Ranks":
        """This process by itself, on the first accelerator or the CPU."""
        return cls(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))

    def leave(self) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def sharded(self) -> bool:
        return self.world > 1

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; every rank gets one answer. It travels over gloo, so that no GPU waits for it."""
        if self.world == 1:
            return flag
        return bool(self.total(torch.tensor(float(flag))))

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()
