"""Asks a vision model behind an OpenAI-compatible endpoint which ontology option an image shows.

Requests and answers have the form of OpenAI's API reference, `POST /chat/completions`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import requests
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from requests.adapters import HTTPAdapter

from prelabel.errors import AccountError, ClassifyError
from prelabel.plugins.affects import Affects
from prelabel.plugins.protocols import ModelRecord
from prelabel.plugins.traits import ModelTraits
from prelabel.runtime.backoff import Backoff, retry_after
from prelabel.runtime.prefetch import map_ahead
from prelabel.runtime.redact import redact

if TYPE_CHECKING:
    import torch


NONE_OF_THESE = "none of these"


@dataclass(frozen=True, slots=True)
class Said:
    """The model's answer for one image.

    Attributes:
        answer: the chosen option; None if the model chose none.
        confidence: confidence of the answer, 0..1.
        is_measured: whether the confidence comes from log-probabilities; if not, it is 1.
        why_none: `none`: the model says that no option fits; `refusal`: it refused to answer; `invalid`: it answered
            something else. Empty if there is an answer.
    """

    answer: str | None
    confidence: float = 0.0
    is_measured: bool = False
    why_none: Literal["", "none", "refusal", "invalid"] = ""


def read_answer(completion: Mapping[str, Any], options: Collection[str]) -> Said:
    """Returns the answer that a completion holds.

    Args:
        completion: the response as JSON.
        options: the options that the model may choose.

    >>> message = {"content": '{"answer": "Cat"}', "refusal": None}
    >>> read_answer({"choices": [{"message": message, "finish_reason": "stop"}]}, ["Cat", "Dog"])
    Said(answer='Cat', confidence=1.0, is_measured=False, why_none='')
    """
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        if message.get("refusal") or choice.get("finish_reason") == "content_filter":
            return Said(None, why_none="refusal")
        answer = json.loads(message["content"])["answer"]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return Said(None, why_none="invalid")
    if answer == NONE_OF_THESE:
        return Said(None, why_none="none")
    if not isinstance(answer, str) or answer not in options:
        return Said(None, why_none="invalid")
    probability = _probability(choice, json.dumps(answer)[1:-1], answer)
    return Said(answer, 1.0 if probability is None else probability, probability is not None)


def _probability(choice: Mapping[str, Any], *forms: str) -> float | None:
    """Returns the product of the probabilities of the answer's tokens; None without log-probabilities."""
    try:
        tokens = [(str(entry["token"]), float(entry["logprob"])) for entry in choice["logprobs"]["content"]]
    except (KeyError, TypeError, ValueError):
        return None
    text = "".join(token for token, _ in tokens)
    for form in forms:
        start = text.rfind(form)
        if start >= 0:
            return math.exp(min(0.0, _sum_within(tokens, start, start + len(form))))
    return None


def _sum_within(tokens: Sequence[tuple[str, float]], start: int, end: int) -> float:
    total, place = 0.0, 0
    for token, logprob in tokens:
        if place < end and place + len(token) > start:
            total += logprob
        place += len(token)
    return total


PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_SECONDS = 1.0
_CONNECT_SECONDS = 10.0


class ChatEndpoint:
    """Sends requests to `POST BASE/chat/completions`. May be called from several threads."""

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        attempts: int,
        timeout_seconds: float,
        requests_per_minute: float | None,
        num_workers: int,
    ) -> None:
        """Prepares the session and sends nothing.

        Args:
            base_url: the address without `/chat/completions`.
            key: sent as a bearer token; None: no token is sent.
            attempts: attempts per request.
            timeout_seconds: how long to wait for an answer.
            requests_per_minute: the most requests per minute; None: no limit.
            num_workers: threads that will call.
        """
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._name = f"classifier 'openai': {urlsplit(base_url).hostname}"
        self._key = key or ""
        self._session = requests.Session()
        self._session.auth = self._sign  # without it, requests would prefer credentials from .netrc over the key
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=num_workers))
        self._backoff = Backoff(attempts, _FIRST_WAIT_SECONDS)
        self._timeout_seconds = timeout_seconds
        self._gap_seconds = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next_at = 0.0
        self._lock = threading.Lock()

    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Sends a request and returns the response as JSON.

        Raises:
            AccountError: the service rejects the key or has no such model, so every other request would fail too.
            ClassifyError: the service refused the request, or every attempt failed.
        """
        trouble = ""
        for attempt in range(1, self._backoff.attempts + 1):
            self._wait_for_turn()
            asked_seconds = 0.0
            try:
                response = self._session.post(
                    self._url,
                    json=request,
                    timeout=(_CONNECT_SECONDS, self._timeout_seconds),
                    allow_redirects=False,  # a redirect could send the bearer token to another host
                )
                if response.status_code not in PASSING:
                    return self._content(response, request)
                trouble = f"{response.status_code}: {self._said(response)}"
                asked_seconds = retry_after(response.headers)
            except requests.RequestException as error:
                trouble = type(error).__name__
            if attempt < self._backoff.attempts:
                self._backoff.sleep(self._backoff.seconds(attempt, asked_seconds))
        raise ClassifyError(f"{self._name}: no answer after {self._backoff.attempts} tries: {trouble}")

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def _content(self, response: requests.Response, request: Mapping[str, Any]) -> dict[str, Any]:
        status = response.status_code
        if status in (401, 403):
            raise AccountError(
                f"{self._name}: does not take the key in OPENAI_API_KEY ({status}): {self._said(response)}"
            )
        if status == 404:
            raise AccountError(
                f"{self._name}: has no model {request['model']!r}, or is no such endpoint (404): {self._said(response)}"
            )
        if status != 200:
            raise ClassifyError(f"{self._name}: refused the request ({status}): {self._said(response)}")
        try:
            content = response.json()
        except ValueError as error:
            raise ClassifyError(f"{self._name}: answered what is not JSON") from error
        if not isinstance(content, dict):
            raise ClassifyError(f"{self._name}: answered a {type(content).__name__}, expected an object")
        return content

    def _said(self, response: requests.Response) -> str:
        """Returns the service's error message, shortened and without the key, which some services quote."""
        text = response.text
        with suppress(KeyError, TypeError, ValueError):
            text = str(response.json()["error"]["message"])
        return redact(" ".join((text.replace(self._key, "…") if self._key else text).split()))[:300]

    def _wait_for_turn(self) -> None:
        if not self._gap_seconds:
            return
        # Each thread reserves its turn under the lock but sleeps outside it, so that others can reserve theirs.
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_at)
            self._next_at = turn + self._gap_seconds
        time.sleep(turn - now)


DEFAULT_BASE_URL = "https://api.openai.com/v1"
REMEMBERED = 4096
DEFAULT_PROMPT = "Which of these does the picture show? If it shows none of them, or you are not sure, say so."


class OpenAIClassifier:
    """Asks a chat-completions endpoint. OPENAI_BASE_URL sets its address, OPENAI_API_KEY the key.

    A refusal or an invalid answer counts as no answer, so the task takes the pathway under `otherwise`.

    Attributes:
        class_names: the options.
        traits: the model and the batch size.
        usage: numbers of requests, tokens, refusals and invalid answers, and the cost, by name; grows during a run.
    """

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            model: the service's name for it, such as `gpt-4o-mini`; it must accept images and give structured output.
            classes: the options to choose from; by default the keys of `labels.classes`, else the ontology's options.
            prompt: the question about each image; the options are sent as the schema of the answer.
            detail: low, high or auto; how closely the service looks at an image, which sets its price.
            imgsz: longer side of the image that is sent, in pixels.
            jpeg_quality: quality of the image that is sent, 1 to 95.
            temperature: sent with each request; null: not sent, for models that take none.
            logprobs: ask for log-probabilities, which give the confidence; without them it is 1.
            workers: number of requests at the same time.
            requests_per_minute: most requests per minute; null: no limit.
            attempts: attempts for each image, if the service is busy or fails.
            timeout_seconds: longest wait for an answer.
            price_in: price of 10^6 tokens sent, in any currency; the report shows the cost.
            price_out: price of 10^6 tokens received.
        """

        model_config = ConfigDict(extra="forbid", frozen=True)

        model: str
        classes: tuple[str, ...] = Field(min_length=1)
        prompt: str = DEFAULT_PROMPT
        detail: Literal["low", "high", "auto"] = "low"
        imgsz: int = Field(default=512, ge=32, le=4096)
        jpeg_quality: int = Field(default=85, ge=1, le=95)
        temperature: float | None = Field(default=0.0, ge=0, le=2)
        logprobs: bool = True
        workers: Annotated[int, Affects.NOTHING] = Field(default=8, ge=1, le=256)
        requests_per_minute: Annotated[float | None, Affects.NOTHING] = Field(default=None, gt=0)
        attempts: Annotated[int, Affects.NOTHING] = Field(default=5, ge=1)
        timeout_seconds: Annotated[float, Affects.NOTHING] = Field(default=60.0, gt=0)
        price_in: Annotated[float, Affects.NOTHING] = Field(default=0.0, ge=0)
        price_out: Annotated[float, Affects.NOTHING] = Field(default=0.0, ge=0)

    def __init__(self, **options: object) -> None:
        self._options = self.Options.model_validate(options)
        base_url, key = os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL, os.environ.get("OPENAI_API_KEY")
        if not key and base_url == DEFAULT_BASE_URL:
            raise AccountError(
                "classifier 'openai': no key: set OPENAI_API_KEY, or OPENAI_BASE_URL to a service that needs none"
            )
        self._endpoint = ChatEndpoint(
            base_url,
            key,
            attempts=self._options.attempts,
            timeout_seconds=self._options.timeout_seconds,
            requests_per_minute=self._options.requests_per_minute,
            num_workers=self._options.workers,
        )
        self.class_names: Sequence[str] = self._options.classes
        self.traits = ModelTraits(
            model=ModelRecord(f"{self._options.model} at {urlsplit(base_url).hostname}"),
            batch_size=4 * self._options.workers,
        )
        self.usage: dict[str, float] = {}
        self._answered: OrderedDict[str, Said] = OrderedDict()
        self._lock = threading.Lock()

    def usage_warnings(self, usage: Mapping[str, float]) -> list[str]:
        """Returns a warning if some confidences were not measured."""
        unmeasured = int(usage.get("unmeasured_answers", 0))
        if not unmeasured:
            return []
        return [f"{unmeasured} answers came without log-probabilities: their confidence is set to 1"]

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns probabilities, float32 (N, C): the confidence of the chosen option, 0 for all others.

        Raises:
            AccountError: the service rejects the key or has no such model.
            ClassifyError: the service gave no answer for an image after all attempts.
        """
        rows = np.zeros((len(images), len(self.class_names)), np.float32)
        numbered = enumerate(images)
        for number, said in map_ahead(self._ask, numbered, num_workers=self._options.workers, name="openai"):
            if said.answer is not None:
                rows[number, self.class_names.index(said.answer)] = said.confidence
        return rows

    def _ask(self, numbered: tuple[int, torch.Tensor]) -> tuple[int, Said]:
        number, image = numbered
        jpeg = self._as_jpeg(image)
        digest = hashlib.sha256(jpeg).hexdigest()
        with self._lock:
            known = self._answered.get(digest)
        if known is not None:  # if one image of a batch fails, the batch is sent again, and each answer costs money
            return number, known
        answer = self._endpoint.complete(self._request(jpeg))
        said = read_answer(answer, self.class_names)
        with self._lock:
            self._count(answer.get("usage"), said)
            self._answered[digest] = said
            if len(self._answered) > REMEMBERED:
                self._answered.popitem(last=False)
        return number, said

    def _as_jpeg(self, image: torch.Tensor) -> bytes:
        from PIL import Image

        picture = Image.fromarray(image.cpu().numpy())
        picture.thumbnail((self._options.imgsz, self._options.imgsz))
        written = io.BytesIO()
        picture.save(written, "JPEG", quality=self._options.jpeg_quality)
        return written.getvalue()

    def _request(self, jpeg: bytes) -> dict[str, Any]:
        link = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
        schema = {
            "type": "object",
            "properties": {"answer": {"type": "string", "enum": [*self.class_names, NONE_OF_THESE]}},
            "required": ["answer"],
            "additionalProperties": False,
        }
        text = f"{self._options.prompt}\nOptions: {json.dumps([*self.class_names, NONE_OF_THESE], ensure_ascii=False)}"
        content = [
            {"type": "text", "text": text},
            {"type": "image_url", "image_url": {"url": link, "detail": self._options.detail}},
        ]
        request: dict[str, Any] = {
            "model": self._options.model,
            "messages": [{"role": "user", "content": content}],
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": True, "schema": schema},
            },
        }
        if self._options.temperature is not None:
            request["temperature"] = self._options.temperature
        if self._options.logprobs:
            request["logprobs"] = True
        return request

    def _count(self, counted: object, said: Said) -> None:
        numbers = counted if isinstance(counted, Mapping) else {}
        tokens = {name: numbers.get(f"{name}_tokens") for name in ("prompt", "completion")}
        sent, received = (number if isinstance(number, int) else 0 for number in tokens.values())
        cost = (sent * self._options.price_in + received * self._options.price_out) / 1e6
        for name, number in {
            "requests": 1,
            "prompt_tokens": sent,
            "completion_tokens": received,
            "cost": cost,
            "refusals": said.why_none == "refusal",
            "invalid_answers": said.why_none == "invalid",
            "unmeasured_answers": said.answer is not None and not said.is_measured,
        }.items():
            self.usage[name] = round(self.usage.get(name, 0) + number, 9)
