"""How long gradients take between GPUs, and how much of it the backward pass hides: a model, no measurement.

The ring: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
2009. The overlap by buckets: S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel
Training", 2020, section 3.2.3.
"""

import math
from dataclasses import dataclass

BUCKET_BYTES = 25 * 2**20
"""Of DistributedDataParallel, by default."""

BACKWARD_SHARE = 2 / 3
"""Of a step: the backward pass of a convolution has two products, the forward pass one."""


@dataclass(frozen=True)
class Exchange:
    """The all-reduce of one step.

    seconds: from the first byte to the last, were it alone; exposed: seconds of it after the end of the
    backward pass; share: of the step (computation and `exposed`) that is `exposed`.
    """

    seconds: float
    exposed: float
    share: float


def ring_seconds(num_bytes: float, num_members: int, bytes_per_second: float, latency: float) -> float:
    """Time of a ring all-reduce, 2 (n - 1) / n * bytes / bandwidth + 2 (n - 1) * latency.

    Args:
        num_bytes: of the gradients.
        num_members: n, the processes in the ring.
        bytes_per_second: of the ring's slowest link, in each direction. A ring through machines with several
            GPUs enters and leaves each machine once, so this is the network's bandwidth per machine.
        latency: seconds per message.
    """
    hops = 2 * (num_members - 1)
    return hops / num_members * num_bytes / bytes_per_second + hops * latency


def exchange(
    num_bytes: float, step_seconds: float, num_members: int, bytes_per_second: float, latency: float
) -> Exchange:
    """The all-reduce of a step whose computation takes `step_seconds`; see `ring_seconds` for the others.

    The gradients are in k buckets of one size, which are ready at regular times of the backward pass and are
    exchanged one after another, while computation goes on at full speed. So the exchange starts 1/k into the
    backward pass, and the last bucket starts no earlier than at its end.
    """
    num_buckets = max(math.ceil(num_bytes / BUCKET_BYTES), 1)
    seconds = num_buckets * ring_seconds(num_bytes / num_buckets, num_members, bytes_per_second, latency)
    hidden = BACKWARD_SHARE * step_seconds * (1 - 1 / num_buckets)
    exposed = max(seconds / num_buckets, seconds - hidden)
    return Exchange(seconds, exposed, exposed / (step_seconds + exposed))
