"""The embedded teacher: a transformers model on this machine, generating many replies at once.

Requests are sorted by length and generated in batches, left-padded; what all prompts of a batch begin with is read once. Sampling noise is drawn per request from its own
seed, so that a reply does not depend on its neighbours (but for rounding: in bfloat16 a different batch may tip a near tie).
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.progress import Progress
from midtrain_dagster.project.teacher import TeacherSettings
from midtrain_dagster.synthesize.teacher import Keep, Message, Reply, Request, structured, taken

WORTH_SHARING = 16  # tokens
BLIND = "the local teacher is a model of text; pictures need an endpoint with a model that sees"


class LocalTeacher:
    """Batched greedy or nucleus sampling. The model is loaded at the first request."""

    paid_attempts = 1

    def __init__(self, settings: TeacherSettings):
        self.settings, self.model = settings, _identity(Path(settings.model), settings.dtype)
        self._loaded: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    def complete(
        self, requests: Iterable[Request | None], progress: Progress | None = None, keep: Keep | None = None
    ) -> Iterator[tuple[int, Reply]]:
        """All requests that there are now are taken first, then answered batch by batch, the shortest prompts first."""
        source, before = iter(requests), 0
        while asked := taken(source):
            for answered in self._answer(asked):
                for position, reply in answered:
                    if keep:
                        keep(before + position, reply)
                if progress:
                    progress.advance(len(answered))
                yield from ((before + position, reply) for position, reply in answered)
            before += len(asked)

    def _answer(self, asked: list[Request]) -> Iterator[list[tuple[int, Reply]]]:
        """The replies, a batch at a time, each with the position of its request."""
        tokenizer, _ = self._load()
        reads = [all(isinstance(message["content"], str) for message in request.messages) for request in asked]
        yield [(i, Reply(error="reads no pictures", detail=BLIND)) for i, good in enumerate(reads) if not good]
        prompts = [
            self._prompt(tokenizer, request.messages) if good else [] for request, good in zip(asked, reads, strict=True)
        ]
        fits = [
            i
            for i, request in enumerate(asked)
            if len(prompts[i]) + request.parameters.max_tokens <= self._context() and reads[i]
        ]
        yield [
            (i, Reply(error="prompt too long", detail=f"{len(prompts[i])} tokens", prompt_tokens=len(prompts[i])))
            for i in sorted({i for i, good in enumerate(reads) if good} - set(fits))
        ]
        order = sorted(fits, key=lambda i: (asked[i].parameters.max_tokens, len(prompts[i]), i))
        for start in range(0, len(order), self.settings.batch_size):
            batch = order[start : start + self.settings.batch_size]
            replies = self._generate([asked[i] for i in batch], [prompts[i] for i in batch])
            yield [(i, structured(r, asked[i].parameters.json_schema)) for i, r in zip(batch, replies, strict=True)]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(self.settings.model)
                dtype = _arithmetic(self.settings)
                model = AutoModelForCausalLM.from_pretrained(self.settings.model, dtype=dtype, use_safetensors=True)
            except (OSError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise MidtrainError(f"teacher: {self.settings.model} is no directory with a model: {reason}") from None
            placed: Any = model
            self._loaded = tokenizer, placed.to(self.settings.device).eval()
        return self._loaded

    def _context(self) -> int:
        return int(getattr(self._load()[1].config, "max_position_embeddings", 1 << 20))

    def _prompt(self, tokenizer: Any, messages: tuple[Message, ...]) -> list[int]:
        """Token ids of the chat; a last assistant message is left open for the model to go on from."""
        open_ended = messages[-1]["role"] == "assistant"
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=False,
            add_generation_prompt=not open_ended,
            continue_final_message=open_ended,
        )
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def _generate(self, requests: list[Request], prompts: list[list[int]]) -> list[Reply]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        tokenizer, model = self._load()
        ends = _end_tokens(tokenizer, model)
        shared = _shared(prompts) if len(prompts) > 1 else 0
        width = max(map(len, prompts))
        gaps = [width - len(prompt) for prompt in prompts]
        rows = [p[:shared] + [ends[0]] * gap + p[shared:] for p, gap in zip(prompts, gaps, strict=True)]
        ids = torch.tensor(rows, device=model.device)
        mask = torch.tensor([[1] * shared + [0] * gap + [1] * (width - gap - shared) for gap in gaps], device=model.device)
        longest = max(request.parameters.max_tokens for request in requests)
        config = GenerationConfig(max_new_tokens=longest, do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
        sampling = LogitsProcessorList([_Nucleus(requests)])
        with torch.inference_mode():
            known: dict[str, Any] = {}
            if shared:
                known["past_key_values"] = model(ids[:1, :shared], use_cache=True).past_key_values
                known["past_key_values"].batch_repeat_interleave(len(prompts))
            out = model.generate(ids, attention_mask=mask, generation_config=config, logits_processor=sampling, **known)
        written = out[:, width:].tolist()
        return [_reply(tokenizer, r, len(p), w, ends) for r, p, w in zip(requests, prompts, written, strict=True)]


def _identity(directory: Path, dtype: str) -> str:
    """A name that changes with the weights: `smollm2@1f0c…`, from the configuration and the ends of the weight files."""
    weights = sorted(directory.glob("*.safetensors"))
    if not weights:
        raise MidtrainError(f"teacher: {directory} is no directory with a model: there are no *.safetensors in it")
    digest = blake2b(dtype.encode(), digest_size=4)
    for path in [directory / "config.json", *weights]:
        with path.open("rb") as file:
            digest.update(f"{path.name} {path.stat().st_size}".encode() + file.read(1 << 20))
            file.seek(max(0, path.stat().st_size - (1 << 20)))
            digest.update(file.read())
    return f"{directory.resolve().name}@{digest.hexdigest()}"


def _shared(prompts: list[list[int]]) -> int:
    """Tokens at the beginning that all prompts share, such as worked examples; they are read once for the whole batch.

    0 where it would not pay; at least one token of every prompt is left.
    """
    first, last = min(prompts), max(prompts)
    most = min(len(first), len(last), *map(len, prompts)) - 1
    same = next((i for i in range(most) if first[i] != last[i]), most)
    return same if same >= WORTH_SHARING else 0


def _arithmetic(settings: TeacherSettings) -> Any:
    """The torch dtype: `auto` takes bfloat16 on accelerators and on processors with instructions for it."""
    import torch

    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    fast = settings.device != "cpu" or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


class _Nucleus:
    """Nucleus sampling (arXiv:1904.09751) as greedy search over logits with Gumbel noise, one generator a request.

    argmax(logits / T + Gumbel) is distributed as softmax(logits / T), so that each row has its own reproducible noise.
    """

    def __init__(self, requests: list[Request]):
        import torch

        self.parameters = [request.parameters for request in requests]
        self.noise = [torch.Generator().manual_seed(p.seed % (1 << 63)) for p in self.parameters]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        out = scores.float()
        for row, parameters in enumerate(self.parameters):
            if parameters.temperature <= 0:
                continue
            logits = out[row] / parameters.temperature
            if parameters.top_p < 1:
                best, order = torch.topk(logits, min(1024, logits.numel()))
                probability = torch.softmax(logits, -1)[order]
                tail = probability.cumsum(-1) - probability >= parameters.top_p
                logits = torch.full_like(logits, -torch.inf).scatter(0, order, best.masked_fill(tail, -torch.inf))
            uniform = torch.rand(logits.shape, generator=self.noise[row]).clamp_(1e-9, 1 - 1e-7).to(logits.device)
            out[row] = logits - torch.log(-torch.log(uniform))
        return out


def _end_tokens(tokenizer: Any, model: Any) -> list[int]:
    named = model.generation_config.eos_token_id
    named = [named] if isinstance(named, int) else list(named or [])
    ends = list(dict.fromkeys([*named, tokenizer.eos_token_id]))
    return [end for end in ends if end is not None] or [0]


def _reply(tokenizer: Any, request: Request, prompt_tokens: int, written: list[int], ends: list[int]) -> Reply:
    end = next((place for place, token in enumerate(written) if token in ends), None)
    tokens = written[: request.parameters.max_tokens] if end is None else written[:end]
    finish = "length" if end is None or end >= request.parameters.max_tokens else "stop"
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    cut = min((at for word in request.parameters.stop if (at := text.find(word)) >= 0), default=None)
    if cut is not None:
        text, finish = text[:cut], "stop"
    return Reply(text, None, "", prompt_tokens, len(tokens), finish)
