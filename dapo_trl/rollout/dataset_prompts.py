"""The settings `system_prompt`, `few_shot` and `prompt_template`, applied to data sets; and the tokens of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
from datasets import Dataset, IterableDataset

from envs.chat import checked_messages, user
from envs.prompt_format import PromptFormat
from envs.text import brief

from ..errors import ConfigError, one_line
from .chat_format import ChatFormat
from .environments import as_prompt, make_env
from .prompting import NAMES, overlap, prompted, prompting_of


def env_and_form(env: str | gymnasium.Env | None, settings: Any) -> tuple[gymnasium.Env | None, PromptFormat | None]:
    """The environment of an id or instance, asking as the settings say, and how its prompts are put together; without
    an environment None, and how those of the data set are."""
    made = None if env is None else prompted(make_env(env), settings)
    return made, prompt_form(made, settings)


def prompt_form(env: gymnasium.Env | None, settings: Any) -> PromptFormat | None:
    """How the prompts of an environment, or of a data set where there is none, are put together; None: as they are.

    Raises:
        ConfigError: A number of examples is asked for without an environment.
    """
    if env is not None:
        layer = prompting_of(env)
        return None if layer is None else layer.format
    if isinstance(settings.few_shot, int) and settings.few_shot:
        raise ConfigError(
            f"few_shot is {settings.few_shot}, and there is no environment whose solution() answers its rows: give the "
            "examples themselves, as a list or a file."
        )
    asked = [getattr(settings, name) for name in NAMES]
    return PromptFormat.of(*asked) if any(asked) else None


@dataclass(frozen=True)
class PromptedRows:
    """The rows of a data set with their prompts put together, as a prompt source; see `put_together`."""

    rows: Dataset
    form: PromptFormat
    tokenizer: Any

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return put_together(self.rows[index], self.form, self.tokenizer)


def put_together(row: Mapping[str, Any], form: PromptFormat, tokenizer: Any) -> dict[str, Any]:
    """A row of a data set with its prompt put together; one whose prompt is neither text nor a chat stays as it is.

    It also gets its own question as ``question``, unless it has such a column, and ``is_example`` if that is among the
    examples.

    Raises:
        ConfigError: Its prompt cannot be put together.
    """
    prompt = row.get("prompt")
    if not prompt or not isinstance(prompt, str | list):
        return dict(row)
    try:
        own = [user(prompt)] if isinstance(prompt, str) else checked_messages(prompt, "its prompt")
        messages = form.messages(own)
    except ValueError as error:
        raise ConfigError(f"the row {brief(dict(row))} of the data: {one_line(error)}.") from error
    found = {"is_example": True} if form.is_example(own) else {}
    return {"question": own[-1]["content"], **row, "prompt": as_prompt(messages, tokenizer), **found}


def prompted_rows(dataset: Any, form: PromptFormat | None, tokenizer: Any) -> Any:
    """A training set with the prompts of its rows put together.

    Raises:
        ConfigError: All its rows are examples.
    """
    if form is None:
        return dataset
    if isinstance(dataset, IterableDataset):
        return dataset.map(put_together, fn_kwargs={"form": form, "tokenizer": tokenizer})
    rows = PromptedRows(dataset, form, tokenizer)
    if form.few_shot and all(rows[index].get("is_example") for index in range(len(rows))):
        raise ConfigError(
            f"all {len(rows)} rows of train_dataset are among the few_shot examples, and those are never trained on: "
            "give other examples."
        )
    return rows


def as_asked(rows: Any, form: PromptFormat | None, tokenizer: Any) -> Any:
    """Rows of TRL's evaluation with their prompts put together.

    Raises:
        ConfigError: A row is among the examples.
    """
    if form is None or not isinstance(rows, list):
        return rows
    asked = [put_together(row, form, tokenizer) for row in rows]
    for row in asked:
        if row.get("is_example"):
            raise ConfigError(overlap("a row of eval_dataset", row["question"]))
    return asked


def refuse_examples(eval_dataset: Any, form: PromptFormat | None) -> None:
    """Refuse a data set to evaluate on, or several by name, that holds an example; a stream is looked at as it is read.

    Raises:
        ConfigError: With the row.
    """
    if form is None or not form.few_shot:
        return
    for name, dataset in (eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}).items():
        for index in range(len(dataset)) if isinstance(dataset, Dataset) else ():
            row = put_together(dataset[index], form, None)
            if row.get("is_example"):
                place = f"eval_dataset[{name!r}]" if name else "eval_dataset"
                raise ConfigError(overlap(f"row {index} of {place}", row["question"]))


def example_tokens(form: PromptFormat, chat_format: ChatFormat) -> int:
    """Tokens that the examples take in every prompt.

    Raises:
        ConfigError: The chat template refuses the prompt, such as its system message.
    """
    forms = (form, replace(form, few_shot=()))
    prompts = [as_prompt(one.messages([user("-")]), chat_format.tokenizer) for one in forms]
    whole, bare = (len(chat_format.prompt_ids(prompt)) for prompt in prompts)
    return whole - bare
