"""A model behind an OpenAI-compatible server (vLLM, SGLang, llama.cpp), through lm-evaluation-harness's local-completions.

Scoring needs a server that echoes the prompt with log-probabilities and cuts text as the given tokenizer does; whether it does is
asked once, at the start. Import this module inside functions only.
"""

from importlib.util import find_spec
from typing import Any

from lm_eval.api.instance import Instance  # noqa: TID253
from lm_eval.models.openai_completions import LocalCompletionsAPI  # noqa: TID253

from midtrain_dagster.errors import MidtrainError
from midtrain_dagster.evaluate.responses import Responses, request_key
from midtrain_dagster.progress import Progress, silent
from midtrain_dagster.recipes.evaluation import Evaluation


class ServedModel(LocalCompletionsAPI):
    """For `lm_eval.simple_evaluate`; every answer is kept, equal greedy requests are sent once."""

    packs = False  # prefixes are the server's to share

    def __init__(self, url: str, name: str, *, settings: Evaluation, responses: Responses, progress: Progress | None = None):
        if find_spec("tenacity") is None:
            raise MidtrainError(
                "a served model needs packages that are not installed; `pip install 'lm-eval[api]'` brings them"
            )
        super().__init__(
            base_url=f"{url}/completions",
            model=name,
            tokenizer=settings.tokenizer or name,
            tokenizer_backend="huggingface" if settings.tokenizer else None,
            tokenized_requests=settings.tokenizer is not None,
            batch_size=settings.batch_size,
            num_concurrent=settings.concurrent,
            max_gen_toks=256,
            max_retries=3,
            seed=settings.seed,
        )
        self.name, self.url, self.cap = name, url, settings.max_gen_toks
        self.responses, self.watch = responses, progress or silent()
        self.scores, self.reason = self._echoes(settings.tokenizer)

    def _echoes(self, tokenizer: str | None) -> tuple[bool, str]:
        """Whether the server scores given text; and why not."""
        import requests

        if tokenizer is None:
            return False, "no `tokenizer` is set, so that nobody knows where a prompt ends"
        payload: dict[str, Any] = {
            "model": self.name,
            "prompt": "One two",
            "max_tokens": 1,
            "logprobs": 1,
            "echo": True,
            "temperature": 0,
        }
        try:
            reply = requests.post(f"{self.url}/completions", json=payload, headers=self.header, timeout=60)
        except requests.RequestException as error:
            raise MidtrainError(f"{self.url}: no server answers: {error}") from None
        if reply.status_code >= 500:
            raise MidtrainError(f"{self.url}: the server fails with {reply.status_code}: {reply.text[:200]}")
        try:
            given = reply.json()["choices"][0]["logprobs"]["token_logprobs"]
            wanted = len(self.tok_encode("One two"))
        except (ValueError, KeyError, TypeError, IndexError):
            return False, f"the server gives no log-probabilities of a prompt (status {reply.status_code})"
        if len(given) != wanted + 1:
            return False, f"the server counts {len(given) - 1} tokens where {tokenizer} counts {wanted}"
        return True, ""

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As the harness's, once for each distinct request. Raises MidtrainError where the server cannot."""
        if not self.scores:
            raise MidtrainError(
                f"{self.name} at {self.url} cannot be asked how likely a text is: {self.reason}. Benchmarks that generate run; "
                "multiple choice and bits of gold answers need `echo` with `logprobs` (vLLM has it) and the recipe's `tokenizer`"
            )
        return self._through("loglikelihood", requests, super().loglikelihood)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """As the harness's, once for each distinct greedy request."""
        return self._through("generate_until", [self._capped(request) for request in requests], super().generate_until)

    def _capped(self, request: Instance) -> Instance:
        context, arguments = request.args
        cap = arguments.get("max_gen_toks", self.cap or 256)
        arguments = {**arguments, "max_gen_toks": min(cap, self.cap or cap)}
        return Instance("generate_until", request.doc, (context, arguments), request.idx)

    def _through(self, kind: str, requests: list[Instance], ask: Any) -> list[Any]:
        seen: dict[str, int] = {}
        keys = []
        for request in requests:
            base = request_key(kind, *request.args)
            sampled = kind == "generate_until" and request.args[1].get("do_sample")
            repeat = seen.get(base, 0) if sampled else 0
            seen[base] = repeat + 1
            keys.append(request_key(base, repeat))
        asked = {key: request for key, request in zip(keys, requests, strict=True) if key not in self.responses}
        names = list(asked)
        step = max(int(self._batch_size), 1) * max(int(self._concurrent), 1)
        for start in range(0, len(names), step):
            some = names[start : start + step]
            answers = ask([asked[name] for name in some], disable_tqdm=True)
            self.responses.add(zip(some, (_kept(answer) for answer in answers), strict=True))
            self.watch.advance(len(some))
        return [self.responses[key] for key in keys]


def _kept(answer: Any) -> Any:
    return list(answer) if isinstance(answer, tuple) else answer
