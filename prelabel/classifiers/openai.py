"""A vision model behind an OpenAI-compatible endpoint, asked which of the ontology's options a picture shows.

The form of requests and answers is that of OpenAI's API reference, `POST /chat/completions`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from prelabel.classifiers.openai_answers import NONE_OF_THESE, Said, read_answer
from prelabel.classifiers.openai_calls import ChatEndpoint
from prelabel.errors import AccountError
from prelabel.prefetch import map_ahead
from prelabel.protocols import ModelRecord

if TYPE_CHECKING:
    import torch

DEFAULT_BASE_URL = "https://api.openai.com/v1"
REMEMBERED = 4096
DEFAULT_PROMPT = "Which of these does the picture show? If it shows none of them, or you are not sure, say so."


class OpenAIClassifier:
    """Asks a chat-completions endpoint; where it is comes from OPENAI_BASE_URL, the key from OPENAI_API_KEY.

    A refusal, or an answer that is not one of the options, is no answer: the task goes `otherwise`.

    Attributes:
        class_names: the options.
        model: the service's name for its model.
        default_batch_size: pictures in hand at a time.
        usage: requests, tokens, cost and answers that were none, by name; grows while a run goes on.
    """

    takes_classes = True

    class Options(BaseModel):
        """What a config may say.

        Attributes:
            model: the service's name for it, such as `gpt-4o-mini`; it must take pictures and structured output.
            classes: what is to be told apart; by default the keys of `labels.classes`, else the ontology's options.
            prompt: asked of each picture; the options are part of the form that the answer has to have.
            detail: low, high or auto; what the service makes of a picture's size, and of its price.
            imgsz: pixels of the longer side of what is sent.
            jpeg_quality: of what is sent, 1 to 95.
            temperature: null leaves it out, for models that take none.
            logprobs: ask for log-probabilities: the confidence is measured by them, and 1 without them.
            workers: requests at the same time.
            requests_per_minute: sent at most; null: as many as the workers make.
            attempts: tries at each picture, while the service is busy or fails.
            timeout_seconds: for an answer.
            price_in: for 10^6 tokens sent, in the currency that the report is to count.
            price_out: for 10^6 tokens received.
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
        workers: int = Field(default=8, ge=1, le=256)
        requests_per_minute: float | None = Field(default=None, gt=0)
        attempts: int = Field(default=5, ge=1)
        timeout_seconds: float = Field(default=60.0, gt=0)
        price_in: float = Field(default=0.0, ge=0)
        price_out: float = Field(default=0.0, ge=0)

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
        self.model = ModelRecord(f"{self._options.model} at {urlsplit(base_url).hostname}")
        self.default_batch_size = 4 * self._options.workers
        self.usage: dict[str, float] = {}
        self._answered: OrderedDict[str, Said] = OrderedDict()
        self._lock = threading.Lock()

    def usage_warnings(self, usage: Mapping[str, float]) -> list[str]:
        """Returns that confidences were not measured, where they were not."""
        unmeasured = int(usage.get("unmeasured_answers", 0))
        if not unmeasured:
            return []
        return [
            f"{unmeasured} answers came without log-probabilities: their confidence stands at 1 and is not measured"
        ]

    def classify(self, images: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Returns the probability of the option that was answered, float32 (N, C), 0 of all others.

        Raises:
            AccountError: the service does not take the key, or has no such model.
            ClassifyError: it did not answer a picture, however often it was asked.
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
        if known is not None:  # a batch of which one picture failed is asked for again; answers cost
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
