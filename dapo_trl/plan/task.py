"""What the environment of a run says of its size and its prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer

from ..config import DAPOConfig
from ..errors import ConfigError
from ..rollout.chat_format import ChatFormat
from ..rollout.environments import EnvironmentRows, make_env, row_count
from ..run.settings import RunConfig

LOOKED_AT = 64
"""prompts"""
CHARACTERS_PER_TOKEN = 3.0
"""of English and figures, where there is no tokenizer; on the safe side"""
UNKNOWN_PROMPT = 512
"""tokens, when nothing is known"""


@dataclass(frozen=True)
class Task:
    rows: int | None
    """of the data; None: endless or not known"""
    prompt_mean: float
    """tokens"""
    prompt_longest: int
    """tokens"""
    note: str = ""
    """how it is known, when it is not measured; may be empty"""
    seen: int = 0
    """prompts that were measured"""
    endless: bool = False
    """prompts without number"""


def look_at_task(
    run: RunConfig, args: DAPOConfig, *, prompt_tokens: int | None = None, rows: int | None = None
) -> Task:
    """Make the environment and measure its first prompts with the model's tokenizer.

    Args:
        prompt_tokens: of every prompt, instead.
        rows: of the data, instead.

    Raises:
        ConfigError: the environment is unknown or rejects its arguments. A Hub that cannot be reached is no error.
    """
    assert run.env is not None and run.model is not None
    try:
        env = make_env(run.env, **run.env_kwargs)
    except ConfigError as error:
        if not _out_of_reach(error):
            raise
        tokens = prompt_tokens or UNKNOWN_PROMPT
        return Task(rows, tokens, tokens, f"the data cannot be read here; prompts are taken to be {tokens} tokens")
    size = row_count(env)
    rows, endless = rows or size, size is None
    if prompt_tokens is not None:
        note = f"prompts are taken to be {prompt_tokens} tokens"
        return Task(rows, prompt_tokens, prompt_tokens, note, endless=endless)
    tokenizer = _tokenizer(run.model)
    source = EnvironmentRows(env, tokenizer)
    prompts = [source[index]["prompt"] for index in range(min(size or LOOKED_AT, LOOKED_AT))]
    if tokenizer is None:
        lengths = [int(len(prompt) / CHARACTERS_PER_TOKEN) + 1 for prompt in prompts]
        note = f"no tokenizer at hand: {CHARACTERS_PER_TOKEN:g} characters of a prompt are taken for a token"
    else:
        template = args.chat_template_kwargs if isinstance(args.chat_template_kwargs, dict) else {}
        chat_format = ChatFormat(tokenizer, (), template)
        lengths, note = [len(chat_format.prompt_ids(prompt)) for prompt in prompts], ""
    return Task(rows, sum(lengths) / len(lengths), max(lengths), note, len(lengths), endless)


def _tokenizer(model: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _out_of_reach(error: BaseException) -> bool:
    """Whether what went wrong is the network's doing."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ConnectionError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
