"""The objective: task losses of all classifiers and pairwise mimicking (Eqs. 7-9)."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import distributed, nn

from dhm.branches import MAIN
from dhm.errors import InputError
from dhm.losses.divergences import IGNORED, cross_entropy, pairwise_kl, rows
from dhm.losses.inputs import check_forms, setting
from dhm.randomness import generator

_STREAM = 0xB3A9C4  # keeps the draw of branches apart from the order of the images under the same seed and epoch


class DHMLoss(nn.Module):
    """Sum of cross-entropies and, for every ordered pair of classifiers, a KL divergence toward the other's prediction.

    L = sum_q c_q CE(q) + s sum_{q != p} m_qp T^2 KL(softmax(z_p / T) || softmax(z_q / T)), where the teacher p is a
    constant. Eqs. 7-9 with all weights one; Eq. 9's sums include the main classifier, as section 3.2 says and the
    released program does, although it prints L - 1 as their end.

    Every argument is an attribute too, read at each step: what is set between two steps counts from the next.

    Args:
        method: "baseline" (B0's cross-entropy alone), "dsl" (all cross-entropies), "dhm" (and mimicking).
        direction: "both"; "top_down", where the deeper classifier teaches the shallower; "bottom_up", the reverse
            (section 4.3.1).
        temperature: T; predictions are softened by it and the divergence multiplied by its square.
        ce_weights: weight of a classifier's cross-entropy by its name, 1 where none is given.
        mimic_weights: weight of a pair by "student<-teacher", e.g. {"B0<-B1": 0.5}, 1 where none is given.
        label_smoothing: share of the target spread over all classes, in the cross-entropies.
        task_loss: what takes the cross-entropy's place for each classifier, a function of its logits (in float32 where
            they are in half precision) and the target, e.g. `nn.CrossEntropyLoss(weight=...)`, a BCE on multi-hot
            targets. Its terms and weights keep the names they have.
        ignore_index: label of an image or position that counts in no term; by default the `task_loss`'s own, else -100.
        mimic_scale: s, a number or a tensor of one, for schedules.
        return_terms: whether a step answers with its terms too, or with the loss alone, as other criteria do. Either
            way the last step's are kept in `terms`.

    Raises:
        InputError: a value that a setting cannot have, when it is set.
    """

    def __init__(
        self, method: str = "dhm", direction: str = "both", temperature: float = 1.0,
        ce_weights: Mapping[str, float] | None = None, mimic_weights: Mapping[str, float] | None = None,
        label_smoothing: float = 0.0, *, task_loss: Callable[..., torch.Tensor] | None = None,
        ignore_index: int | None = None, mimic_scale: float | torch.Tensor = 1.0, return_terms: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.method, self.direction, self.temperature = method, direction, temperature
        self.ce_weights: Mapping[str, float] = ce_weights or {}
        self.mimic_weights: Mapping[str, float] = mimic_weights or {}
        self.label_smoothing, self.task_loss, self.ignore_index = label_smoothing, task_loss, ignore_index
        self.mimic_scale, self.return_terms = mimic_scale, return_terms
        self.terms: dict[str, torch.Tensor] = {}
        self._kept_weights: tuple[Any, torch.Tensor] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, setting(name, value))

    def forward(
        self, logits: Mapping[str, torch.Tensor] | torch.Tensor, target: Any, active: Collection[str] | None = None,
        pair_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]] | torch.Tensor:  # fmt: skip
        """Loss of one batch, its mean over the images, or over all positions of dense logits.

        Args:
            logits: (N, K) or (N, K, ...) for every classifier, the deepest (B0) first, then from deep to shallow.
                Classes at minus infinity are impossible ones: the loss is what it is without them, 0 · inf being 0;
                with label smoothing they have a share of the target, and it is infinite, as torch's. Or
                B0's alone, a network's answer in eval mode, which gives the plain task loss, whatever its weight.
            target: class indices (N, ...), where `ignore_index` leaves an image or position out of every term, or
                probabilities in the shape of the logits; or what `task_loss` takes.
            active: branches that take part in mimicking, all by default. B0 always does; cross-entropies stay.
            pair_weights: what the method of this name gives, computed beforehand: for a compiled step, which is then
                the same whatever `active`, weights and `mimic_scale` are, and tells the terms of all pairs.

        Returns:
            The loss, and its terms by name without gradient: "ce/B0", ..., "kl/B0<-B1" (B0 learns from B1). In half
            precision both are computed in float32. Without `return_terms` the loss alone.

        Raises:
            InputError: as `check`. Or logits or a target of another form, or a label or branch that is none. Or B0
                alone where gradients are wanted and the method trains branches.
        """
        alone = isinstance(logits, torch.Tensor)
        given = self._by_classifier(logits, active)
        heads = (MAIN,) if self.method == "baseline" else tuple(given)
        check_forms(given, heads, target if self.task_loss is None else None)
        with torch.autocast(given[heads[0]].device.type, enabled=False):
            # All heads as one (heads, N, K) block: each later line is one operation, however many branches there are.
            block = _full(torch.stack([rows(given[head]) for head in heads]))
            counted = self._counted(given[heads[0]], target)
            if counted is not None:  # what is ignored may be no number, and no gradient returns to it
                block = block.masked_fill(~counted[:, None], 0)
            entropies = self._task_losses(given, heads, block, target)
            terms = {f"ce/{head}": value.detach() for head, value in zip(heads, entropies, strict=True)}
            weights = [1.0 if alone else self.ce_weights.get(head, 1.0) for head in heads]
            total = torch.stack([
                c * (value if c else value.masked_fill(value.isinf(), 0))
                for c, value in zip(weights, entropies, strict=True)
            ]).sum()  # fmt: skip
            if self.method == "dhm" and len(heads) > 1:
                if pair_weights is None:
                    pair_weights = self.pair_weights(heads, block, active)
                divergences = pairwise_kl(block, self.temperature, counted)
                total = total + (pair_weights * divergences.masked_fill(pair_weights == 0, 0)).sum()
                values = divergences.detach()
                terms |= {f"kl/{pair}": values[q, p] for pair, (q, p) in self.pairs(heads, active).items()}
            if len(heads) < len(given) and distributed.is_available() and distributed.is_initialized():
                total = total + _nothing_of([z for head, z in given.items() if head not in heads])
        self.terms = terms
        return (total, terms) if self.return_terms else total

    def check(self, heads: Sequence[str]) -> None:
        """See that every weight belongs to a classifier or a pair that is there.

        Raises:
            InputError: one does not, and would be ignored in silence.
        """
        pairs = {f"{q}<-{p}" for q in heads for p in heads if p != q}
        for name in sorted(self.ce_weights.keys() - set(heads) | self.mimic_weights.keys() - pairs):
            raise InputError(f"a loss weight is given for {name!r}, but the classifiers are {', '.join(heads)}")

    def pairs(self, heads: Sequence[str], active: Collection[str] | None = None) -> dict[str, tuple[int, int]]:
        """The pairs that mimic by their names, as "B0<-B1", with the indices of student and teacher in `heads`.

        Indices grow from the deepest head to the shallowest.
        """
        mimicking = [i for i, head in enumerate(heads) if head == MAIN or active is None or head in active]
        allowed = {"both": lambda q, p: True, "top_down": lambda q, p: p < q, "bottom_up": lambda q, p: p > q}
        return {
            f"{heads[q]}<-{heads[p]}": (q, p)
            for q in mimicking for p in mimicking if q != p and allowed[self.direction](q, p)
        }  # fmt: skip

    def pair_weights(
        self, heads: Sequence[str], like: torch.Tensor, active: Collection[str] | None = None
    ) -> torch.Tensor:
        """What the divergence of every pair counts, `mimic_scale` included: (heads, heads), row the student, column the
        teacher, 0 where a pair does not mimic; on the device and in the type of `like`.

        The matrix is kept for the steps that follow, so that a GPU need not wait for it.
        """
        active = None if active is None else frozenset(active)
        key = (tuple(heads), active, self.direction, tuple(self.mimic_weights.items()), like.device, like.dtype)
        if self._kept_weights is None or self._kept_weights[0] != key:
            weights = torch.zeros(len(heads), len(heads), dtype=torch.float64)
            for pair, (q, p) in self.pairs(heads, active).items():
                weights[q, p] = self.mimic_weights.get(pair, 1.0)
            self._kept_weights = key, weights.to(like)
        return self._kept_weights[1] * self.mimic_scale

    def _by_classifier(self, logits: Any, active: Collection[str] | None) -> Mapping[str, torch.Tensor]:
        """Logits by classifier, once names and mode are seen to be right."""
        if active is not None and (isinstance(active, str) or not isinstance(active, Iterable)):
            raise InputError(f'active must be a list of branches, e.g. ["B1"], not {active!r}')
        if isinstance(logits, torch.Tensor):
            if self.method != "baseline" and logits.requires_grad and torch.is_grad_enabled():
                raise InputError(
                    f"method {self.method!r} trains all classifiers, but the network gave B0's logits alone, as in "
                    "eval mode: call net.train() before the step, or take DHMLoss('baseline') if there are no branches"
                )
            return {MAIN: logits}
        if not isinstance(logits, Mapping) or not logits:
            raise InputError(
                'logits must be given by classifier, the deepest first, e.g. {"B0": logits, "B1": logits}, not as a '
                f"{type(logits).__name__} of {len(logits) if isinstance(logits, Sized) else 'them'}"
            )
        if self.ce_weights or self.mimic_weights:
            self.check(tuple(logits))
        for name in active or ():
            if not isinstance(name, str) or name not in logits:
                raise InputError(f"active names {name!r}, but the classifiers are {', '.join(logits)}")
        return logits

    def _task_losses(
        self, logits: Mapping[str, torch.Tensor], heads: tuple[str, ...], block: torch.Tensor, target: Any
    ) -> list[torch.Tensor]:
        """Each classifier's own loss."""
        if self.task_loss is None:
            target = rows(target).to(block.dtype) if target.is_floating_point() else target.flatten().long()
            return [cross_entropy(z, target, self.label_smoothing, self._ignored) for z in block]
        if self.label_smoothing:
            raise InputError(
                f"label_smoothing={self.label_smoothing} is the cross-entropy's, whose place task_loss takes: let "
                "task_loss smooth"
            )
        values = [self.task_loss(_full(logits[head]), target) for head in heads]
        for value in values:
            if not isinstance(value, torch.Tensor) or value.dim():
                form = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise InputError(f"task_loss must give a single number, the mean over the batch, not {form}")
        return values

    @property
    def _ignored(self) -> int:
        own = self.ignore_index
        return getattr(self.task_loss, "ignore_index", IGNORED) if own is None else own

    def _counted(self, like: torch.Tensor, target: Any) -> torch.Tensor | None:
        """Which of the positions (N, ...) mimic, by their labels; None if the target has no label for each."""
        indices = isinstance(target, torch.Tensor) and not target.is_floating_point()
        if not indices or target.shape != (like.shape[0], *like.shape[2:]):
            return None
        return target.flatten() != self._ignored


def taking_part(branches: Sequence[str], probability: float, seed: int, epoch: int) -> list[str]:
    """Side branches that take part in an epoch's mimicking, each by a coin of its own (appendix D).

    A function of its arguments alone, so that a resumed run draws what it would have drawn.
    """
    coins = torch.rand(len(branches), generator=generator(_STREAM, seed, epoch), dtype=torch.float64)
    return [branch for branch, coin in zip(branches, coins.tolist(), strict=True) if coin < probability]


def tracker_names(terms: Mapping[str, Any]) -> dict[str, Any]:
    """Terms under names of letters, digits, "_" and "/", which every tracker of experiments takes; MLflow refuses "<":
    "kl/B0<-B1" is "kl/B0_from_B1"."""
    return {name.replace("<-", "_from_"): value for name, value in terms.items()}


def _full(logits: torch.Tensor) -> torch.Tensor:
    """In float32, if they are in half precision."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _nothing_of(unused: Iterable[torch.Tensor]) -> torch.Tensor:
    """0, whatever the logits, with a gradient of 0 for every parameter behind them: DDP waits for all gradients."""
    return torch.stack([z.masked_fill(z.new_ones((), dtype=torch.bool), 0).sum() for z in unused]).sum()
