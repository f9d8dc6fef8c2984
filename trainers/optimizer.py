"""SGD with momentum, the optimizer of every paper here, and the one choice in which they differ: what decays.

| paper                                           | weight decay on norms and biases |
|-------------------------------------------------|----------------------------------|
| Goyal et al. 2017, sec. 5.1; feature denoising  | no                               |
| SlowFast; GN detectors, when fine-tuned         | no                               |
| ImageNet with group norm (Wu & He 2018)         | yes                              |
"""

from torch import nn
from torch.optim import SGD


def sgd(
    model: nn.Module,
    *,
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    decay_norms: bool = False,
) -> SGD:
    """SGD over the parameters that take a gradient, in two groups: those that decay, and the rest.

    A parameter of less than two dimensions belongs to a norm or is a bias; those decay only with `decay_norms`.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.ndim > 1 or decay_norms]
    rest = [p for p in parameters if not (p.ndim > 1 or decay_norms)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
    # Without momentum, Nesterov's step is the plain one; torch refuses the pair instead. On a GPU torch itself
    # takes the multi-tensor (foreach) step.
    return SGD([g for g in groups if g["params"]], lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0)
