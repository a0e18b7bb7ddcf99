"""The model behind lm-evaluation-harness: its own Hugging Face backend, made faster and able to continue after a kill.

Tokenisation, truncation and everything else that decides a number is inherited; only how requests share a pass is ours:
scoring goes through trees of shared prefixes (`packing`), generation stops a row as soon as any stop string is there, and
every answer is kept (`responses`). Import this module inside functions only: it needs torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch  # noqa: TID253
from lm_eval.api.instance import Instance  # noqa: TID253
from lm_eval.models.huggingface import HFLM  # noqa: TID253
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteria, StoppingCriteriaList  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.packing import Tree, trees
from midtrain_dagster.evaluate.precision import precision_of
from midtrain_dagster.evaluate.responses import Responses, request_key
from midtrain_dagster.progress import Progress, silent

Request = tuple[tuple[str, str], list[int], list[int]]  # (context and continuation, tokens of the one, tokens of the other)
SCORED = "loglikelihood"
GENERATED = "generate_until"


class LanguageModel(HFLM):
    """A causal model in the Hugging Face layout, for `lm_eval.simple_evaluate`."""

    scores = True  # it gives log-likelihoods

    def __init__(
        self,
        model: Path | str,
        *,
        precision: str = "auto",
        batch_size: int = 16,
        batch_tokens: int = 1024,
        max_gen_toks: int | None = None,
        responses: Responses | None = None,
        progress: Progress | None = None,
    ):
        network, tokenizer = load(model, precision)
        super().__init__(pretrained=network, tokenizer=tokenizer, batch_size=batch_size)
        self.prompts, self.batch_tokens, self.gen_toks_cap = batch_size, batch_tokens, max_gen_toks
        self.responses = responses if responses is not None else Responses(None)
        self.watch = progress or silent()
        self.packs = _packs_agree(network)
        self.truncated = 0  # distinct prompts so far that were longer than the model reads, and lost their beginning

    # scoring

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy decoding would say the same) of each request; equal ones are scored once."""
        keys = [request_key(SCORED, context, continuation) for _, context, continuation in requests]
        asked = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.responses}
        whole = {key: len(context) + len(answer) for key, (_, context, answer) in zip(keys, requests, strict=True)}
        self.truncated += sum(length > self.max_length + 1 for length in whole.values())
        sequences = [(context + continuation)[-(self.max_length + 1) :][:-1] for _, context, continuation in asked.values()]
        names, targets = list(asked), [continuation for _, _, continuation in asked.values()]
        for members, packed in trees(sequences, self.batch_tokens if self.packs else 1):
            scores = self._score(packed, [targets[i] for i in members])
            self.responses.add((names[i], score) for i, score in zip(members, scores, strict=True))
            self.watch.advance(len(members))
        return [(float(total), bool(greedy)) for total, greedy in (self.responses[key] for key in keys)]

    def _score(self, packed: Tree, targets: Sequence[list[int]]) -> list[tuple[float, bool]]:
        """Of each path's last tokens, the log-likelihood of `targets` there; logits are made for those nodes alone."""
        nodes = [path[len(path) - len(target) :] for path, target in zip(packed.paths, targets, strict=True)]
        needed = torch.as_tensor(sorted({int(node) for some in nodes for node in some}), device=self.device)
        place = {int(node): at for at, node in enumerate(needed)}
        arguments: dict[str, Any] = {}
        if len(packed.paths) > 1:
            arguments["attention_mask"] = torch.as_tensor(packed.mask, device=self.device)[None, None]
            arguments["position_ids"] = torch.as_tensor(packed.positions, device=self.device)[None]
        with torch.inference_mode():
            tokens = torch.as_tensor(packed.tokens, device=self.device)[None]
            logits = self.model(input_ids=tokens, logits_to_keep=needed, use_cache=False, **arguments).logits[0]
            logits = torch.log_softmax(logits.float(), dim=-1)
        scores = []
        for some, target in zip(nodes, targets, strict=True):
            rows = logits[[place[int(node)] for node in some]]
            wanted = torch.as_tensor(target, device=self.device)
            total = rows.gather(1, wanted[:, None]).sum()
            scores.append((float(total), bool((rows.argmax(-1) == wanted).all())))
        return scores

    def score_alone(self, context: str, continuation: str) -> tuple[float, int]:
        """(log-likelihood, tokens) of one continuation in a pass of its own, not looked up and not kept."""
        before, after = self._encode_pair(context, continuation)
        sequence = (before + after)[-(self.max_length + 1) :][:-1]
        ((_, alone),) = trees([sequence], 1)
        ((total, _),) = self._score(alone, [after])
        return total, len(after)

    # generation

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations, cut at the first stop string. Batches hold prompts of like length; each is kept when it is done."""
        seen: dict[str, int] = {}
        keys: list[str] = []
        for request in requests:  # sampled repeats of one prompt are requests of their own, greedy ones are the same
            context, arguments = request.args
            base = request_key(GENERATED, context, arguments, self.gen_toks_cap)
            repeat = seen.get(base, 0) if arguments.get("do_sample") else 0
            seen[base] = repeat + 1
            keys.append(request_key(base, repeat))
        every = dict(zip(keys, requests, strict=True))
        lengths = {key: len(self.tok_encode(request.args[0])) for key, request in every.items()}
        room = {key: self.max_length - self._capped(request).args[1]["max_gen_toks"] for key, request in every.items()}
        self.truncated += sum(length > room[key] for key, length in lengths.items())
        asked = {key: request for key, request in every.items() if key not in self.responses}
        names = sorted(asked, key=lambda key: (str(asked[key].args[1]), -lengths[key], key))
        while names:
            arguments = asked[names[0]].args[1]
            batch = [name for name in names[: self.prompts] if asked[name].args[1] == arguments]
            answers = super().generate_until([self._capped(asked[name]) for name in batch], disable_tqdm=True)
            self.responses.add(zip(batch, answers, strict=True))
            self.watch.advance(len(batch))
            names = names[len(batch) :]
        return [self.responses[key] for key in keys]

    def _capped(self, request: Instance) -> Instance:
        context, arguments = request.args
        arguments = dict(arguments)
        wanted = arguments.get("max_gen_toks") or self.max_gen_toks
        room = min(wanted, self.max_length // 2)  # at least half of a short context is left for the prompt
        arguments["max_gen_toks"] = min(room, self.gen_toks_cap or room)
        return Instance(GENERATED, request.doc, (context, arguments), request.idx)

    def _model_generate(self, context: Any, max_length: int, stop: list[str], **arguments: Any) -> Any:
        temperature = arguments.pop("temperature", 0.0)
        arguments["do_sample"] = bool(arguments.get("do_sample")) and temperature > 0
        if arguments["do_sample"]:
            arguments["temperature"] = temperature
        criteria = StoppingCriteriaList([StopAtAny(self.tokenizer, stop, context.shape[1])])
        with torch.inference_mode():
            return self.model.generate(
                input_ids=context,
                max_length=max_length,
                stopping_criteria=criteria,
                pad_token_id=self.tokenizer.pad_token_id,
                use_cache=True,
                **arguments,
            )


class StopAtAny(StoppingCriteria):
    """A row is done when its new text holds any of the stop strings.

    The harness waits until the whole batch holds one and the same; what comes after a stop string is cut off either way.
    """

    def __init__(self, tokenizer: Any, stops: list[str], prompt: int):
        self.tokenizer, self.stops, self.prompt = tokenizer, stops, prompt
        self.look_back = max((len(tokenizer.encode(stop, add_special_tokens=False)) for stop in stops), default=0) + 2
        self.done: list[bool] = []

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.done = self.done or [False] * len(input_ids)
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt :][:, -self.look_back :])
        self.done = [done or any(stop in text for stop in self.stops) for done, text in zip(self.done, texts, strict=True)]
        return torch.tensor(self.done, device=input_ids.device)


def load(model: Path | str, precision: str) -> tuple[Any, Any]:
    """Model and tokenizer of a directory or a hub name; safetensors only, no code from the model's repository.

    Raises MidtrainError where there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model))
        network = AutoModelForCausalLM.from_pretrained(
            str(model), dtype=getattr(torch, precision_of(precision)), use_safetensors=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise MidtrainError(f"{model}: no model can be loaded from here: {' '.join(str(error).split())[:300]}") from None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.nn.Module.to(network, device).eval(), tokenizer


def _packs_agree(network: Any) -> bool:
    """Whether this architecture honours a tree's mask and positions: tried on one tree."""
    sequences = [[5, 7, 11, 13], [5, 7, 3, 2, 9], [8, 6, 4]]
    sequences.sort()
    (_, packed), *_ = trees(sequences, budget=64)
    device = network.device
    try:
        with torch.inference_mode():
            together = network(
                input_ids=torch.as_tensor(packed.tokens, device=device)[None],
                attention_mask=torch.as_tensor(packed.mask, device=device)[None, None],
                position_ids=torch.as_tensor(packed.positions, device=device)[None],
                logits_to_keep=torch.as_tensor([int(path[-1]) for path in packed.paths], device=device),
                use_cache=False,
            ).logits[0]
            alone = torch.stack([network(input_ids=torch.tensor([s], device=device)).logits[0, -1] for s in sequences])
    except (TypeError, ValueError, RuntimeError):
        return False
    tolerance = 1e-2 if network.dtype == torch.float32 else 0.5
    return together.shape == alone.shape and bool((together.float() - alone.float()).abs().max() < tolerance)
