"""What a client's model predicts, in plain PyTorch from the numbers that a run left."""

import torch
from torch.nn import functional as F

from fedjoint.model.boxes import decode


def backbone(problem, run, group, client):
    """Return the backbone with which a run ends for a client, its features in evaluation."""
    body = problem.of(group).backbone()
    prefix = f"groups.{group}.backbone." if group else "backbone."
    shared = {n.removeprefix(prefix): t for n, t in run.backbone.items() if n.startswith(prefix)}
    own = {n.removeprefix("backbone."): t for n, t in run.heads()[client].items()}
    known = body.state_dict().keys()
    body.load_state_dict({**shared, **{n: t for n, t in own.items() if n in known}}, strict=False)
    return body.eval()


def output(task, features, weight, bias, targets):
    """Return what a linear head makes of features, in the units of a client's training targets."""
    if isinstance(features, dict):
        features = features[
            "map" if task.kind in ("segmentation", "dense_regression") else "vector"
        ]
    if features.ndim == 4:
        made = F.conv2d(features, weight[:, :, None, None], bias)
        if task.kind != "detection":
            made = F.interpolate(made, task.size, mode="bilinear", align_corners=False)
    else:
        made = F.linear(features, weight, bias)
    if task.kind == "preference":
        made = made.squeeze(-1)
    if task.kind == "regression":
        known = targets[~targets.isnan().any(1)].double()
        made = made * known.std(0, correction=0) + known.mean(0)
    if task.kind == "dense_regression":
        flat = targets.movedim(1, -1).flatten(0, 2).double()
        known = flat[~flat.isnan().any(1)]
        form = -1, 1, 1
        made = made * known.std(0, correction=0).view(form) + known.mean(0).view(form)
    return made.float()


def predicted(task, made):
    """Return the arrays that a prediction consists of."""
    if "regression" in task.kind:
        return {task.name: made}
    if task.kind == "detection":
        boxes = decode(made, 100)
        return {task.name: boxes.corners, "class": boxes.classes, "score": boxes.scores}
    if task.kind == "multilabel":
        return {task.name: (made > 0).long(), "probability": 1 / (1 + (-made).exp())}
    classes = made.movedim(1, -1) if task.kind == "segmentation" else made
    shares = classes.exp() / classes.exp().sum(-1, keepdim=True)
    return {task.name: classes.argmax(-1), "probability": shares.amax(-1)}


def prediction(problem, run, task, client, x):
    """Return the arrays that ``fedjoint predict`` has to write for inputs ``x`` of a client."""
    group = problem.group_names[problem.member[client]]
    own = run.heads()[client]
    weight, bias = (
        next(t for n, t in own.items() if n.startswith(f"heads.{task.name}.") and n.endswith(part))
        for part in ("weight", "bias")
    )
    targets = problem.data.client(client).train.y[task.name]
    with torch.no_grad():
        features = backbone(problem, run, group, client)(x)
        return predicted(task, output(task, features, weight, bias, targets))
