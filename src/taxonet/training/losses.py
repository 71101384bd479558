"""The loss of every picture of a batch: cross entropy with soft targets and class weights, and distillation."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy (N,) of logits and targets (N, classes), which label smoothing mixes with the even distribution
    (Szegedy et al. 2016, arXiv 1512.00567, §7)."""
    return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="none")


def picture_weights(targets: Tensor, class_weights: Tensor | None) -> Tensor | float:
    """The weight (N,) of every picture: that of its class, or the mean over the classes of a mixed one."""
    return 1.0 if class_weights is None else targets @ class_weights


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) (N,) of both softened by the temperature T (Hinton et al. 2015, arXiv 1503.02531, §2).

    The factor keeps the gradients as large as those of cross entropy whatever T is.
    """
    log_student = F.log_softmax(logits.float() / temperature, dim=1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, log_target=True, reduction="none").sum(1)
    return divergence * temperature**2
