"""How the agent is asked: few-shot for pretrained checkpoints, the chat template for -it ones."""

from __future__ import annotations

QUESTION = 'Q: '
ANSWER = 'A:'

# Four everyday questions with short answers, so that a pretrained model sees the format.
ANSWER_PREFIX = """Q: What is the capital of France?
A: Paris

Q: How many legs does a spider have?
A: Eight

Q: Who wrote Hamlet?
A: William Shakespeare

Q: What colour is grass?
A: Green

"""


def question(text: str) -> str:
  """A question in the format of ANSWER_PREFIX; the answer follows after a space."""
  return f'{QUESTION}{text}\n{ANSWER}'


def question_opening(words: str) -> str:
  return QUESTION + words
