"""A model behind an OpenAI-compatible address as an `Answerer`: vLLM, SGLang, llama.cpp, LM Studio, a cloud's.

In: questions. Out: answers, as they come, several asked at once. The client waits and tries again after network
faults, overload and server errors; what the server refuses for good is an answer with `error` set. Pictures are sent
as PNG: the pixels that every other answerer sees.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from bunny.core.errors import UserError
from bunny.core.types import Answer, GenerationSettings, ImageRef, Question

TRIES = 6
AT_ONCE = 8


class EndpointAnswerer:
    """Answers of `model` at `url` (with its `/v1`, as the server's documentation names it).

    key: the secret, or "" for a server that wants none. at_once: requests under way at most. Raises UserError for
    settings that the protocol cannot express, and while answering for a wrong key, address or model name.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str,
        open_image: Callable[[ImageRef], Any],
        settings: GenerationSettings,
        at_once: int = AT_ONCE,
        tries: int = TRIES,
        timeout_seconds: float = 300.0,
    ) -> None:
        if settings.num_beams > 1:
            raise UserError(f"{url}: an endpoint cannot be asked for beams", fix="use a model folder")
        try:
            import openai
        except ImportError:
            raise UserError(
                "asking an endpoint needs the openai client", fix='pip install "bunny-vlm[endpoint]"'
            ) from None
        self.url, self.model, self.open_image, self.settings, self.at_once = url, model, open_image, settings, at_once
        self._client = openai.OpenAI(
            base_url=url, api_key=key or "none", max_retries=tries - 1, timeout=timeout_seconds
        )

    @property
    def name(self) -> str:
        return f"{self.model} at {self.url}"

    def answer(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """One answer per question, in the order in which they come back."""
        with ThreadPoolExecutor(self.at_once, "endpoint") as pool:
            waiting = [pool.submit(self._answer, question) for question in questions]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: Question) -> Answer:
        import openai

        try:
            pictures = [_data_url(self.open_image(ref)) for ref in question.images]
        except UserError as error:
            return Answer(question.id, "", error=str(error))
        try:
            said = self._client.chat.completions.create(**self._request(question.prompt, pictures))
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(
                f"{self.url}: {self.model}: {_line(error)}", fix="check --endpoint, --model and the key"
            ) from None
        except openai.OpenAIError as error:
            return Answer(question.id, "", error=f"{self.url}: {_line(error)}")
        text = said.choices[0].message.content if said.choices else None
        if text is None:
            return Answer(question.id, "", error=f"{self.url}: an answer without text")
        return Answer(question.id, text.strip())

    def _request(self, prompt: str, pictures: Sequence[str]) -> dict[str, Any]:
        settings = self.settings
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
        more: dict[str, Any] = {"stop": list(settings.stop)} if settings.stop else {}
        if settings.temperature > 0:
            more["top_p"] = settings.top_p
        if settings.repetition_penalty != 1:  # not OpenAI's, but vLLM's and SGLang's
            more["extra_body"] = {"repetition_penalty": settings.repetition_penalty}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}],
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            **more,
        }


def _data_url(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
