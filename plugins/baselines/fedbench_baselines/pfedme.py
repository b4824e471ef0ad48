"""pFedMe: personal models by Moreau envelopes; the shared model moves towards them.

Dinh, Tran, Nguyen: Personalized Federated Learning with Moreau Envelopes, NeurIPS 2020. The
formulas agree with the released code; the paper was not re-read.

For each batch, K steps of `theta_step` approach the minimum of
``F_k(theta) + lambda/2 * ||theta - w||^2``, and one `local_step` moves w towards it. The personal
model is theta; as in the released code, it is not reset between batches. What that code evaluates
as theta are the parameters of the model into which it has just copied w, so the "personalised"
accuracy that it reports is that of w. Its optimiser also adds a weight decay of 0.001 that the
paper does not mention; here there is none.
"""

from __future__ import annotations

from fedbench import Weights

from .ditto import personal_step


def theta_step(
    theta: Weights, gradient: Weights, local: Weights, lr: float, weight: float
) -> Weights:
    """Return ``theta - lr * (g + weight * (theta - w))``, one step of the personal model.

    It is Ditto's step with the client's own w in place of the received model.

    Args:
        theta: the personal model, trainable parameters by name.
        gradient: g, the gradient of the client's loss at theta, under the same names.
        local: w, the client's copy of the shared model, under the same names.
        lr: the personal learning rate.
        weight: lambda.
    """
    return personal_step(theta, gradient, local, lr, weight)


def local_step(local: Weights, theta: Weights, lr: float, weight: float) -> Weights:
    """Return ``w - lr * weight * (w - theta)``, a step along the envelope's gradient.

    Args:
        local: w, trainable parameters by name.
        theta: the personal model, under the same names.
        lr: the learning rate of w; w approaches theta from one side if ``lr * weight < 1``.
        weight: lambda.
    """
    return {k: w - lr * weight * (w - theta[k]) for k, w in local.items()}
