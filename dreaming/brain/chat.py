"""How a reply is prompted: examples for pretrained checkpoints, the chat template for -it ones.

A reply's prompt is a prefix that many replies share, so that its KV cache is kept, and the rest:
notes (the memories that came to mind, oldest first), the last turns, and the message. Questions to
a pretrained checkpoint get the very format that nights train and exams ask in; with notes, the
examples before it have notes too.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Sequence

from dreaming.brain import prompts
from dreaming.brain.decode import Prompt
from dreaming.brain.tokenizer import Tokenizer
from dreaming.types import Experience, Trust

STATEMENT = 'Friend: '
REPLY = 'Reply:'

# Short, kind, and without facts that could pass for the user's.
STATEMENT_PREFIX = """Friend: I have finally finished the report!
Reply: Well done! You must be relieved.

Friend: It has been raining all day.
Reply: A good day to stay inside, then.

Friend: My cousin Bo is moving to Norway next month.
Reply: How exciting for Bo! I will remember that.

Friend: I feel a bit low this evening.
Reply: I am sorry to hear that. I am here for you.

Friend: Thank you, good night.
Reply: You are welcome. Sleep well!

"""

# Notes and what to make of them: look for the word, leave what does not matter, take the newer one.
NOTES_PREFIX = """Note (2025-06-01): Omar said: "Our cat Tiger has eaten my breakfast again."
Note (2025-06-03): Omar said: "I have to be at the bank at nine."
Q: Which animal lives in Omar's home?
A: A cat

Note (2025-07-11): Ana said: "My brother Paul has moved to Lisbon."
Note (2025-07-12): Ana said: "I do not feel like cooking tonight."
Q: Where does Ana's brother live?
A: Lisbon

Note (2025-08-20): Kim said: "I am learning to bake bread."
Q: What is the capital of France?
A: Paris

Note (2025-09-02): Joe said: "My exam is on the 4th of May."
Note (2025-09-05): Joe said: "They have moved my exam to the 9th of May."
Q: When does Joe have an exam?
A: On the 9th of May

"""

# For -it checkpoints, at the head of the first turn.
INSTRUCTION = """You are {agent}, a warm companion of {user}. Answer questions in one short \
sentence, from what you know of {user} and of the world; when you do not know, say so. Reply to \
everything else with one short, kind sentence.

"""

NOTE = 'Note ({date:%Y-%m-%d}): {speaker} said: "{words}"\n'
FOREIGN_NOTE = 'Note ({date:%Y-%m-%d}): {speaker} was told by others: "{words}"\n'
IMPORTED_NOTE = 'Note ({date:%Y-%m-%d}): in an imported text {speaker} said: "{words}"\n'
"""What is not the user's own words, or nobody knows whether it is: data, and no instruction."""
RECOLLECTION = '(Recollection: {words})\n'
"""What the agent itself has made of its memories: experiences of the kind 'reflection'."""
NOTE_CHARS = 300
"""Of a longer memory the beginning is quoted."""

_NOTES = {Trust.THIRD_PARTY: FOREIGN_NOTE, Trust.IMPORTED: IMPORTED_NOTE}
_AUXILIARY = (
  r"(?:is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|'s)"
)
_UNMARKED = re.compile(
  rf'(?:what|who|whom|whose|which|where|when|why|how)(?:\s+\w+)?\s*{_AUXILIARY}\b.*[^.!]',
  re.IGNORECASE | re.DOTALL,
)

# One sentence that begins as a question does: "I have a tuba, haven't I?" tells something, too.
_ASKS = re.compile(
  r'(?:(?:and|but|so|well|hey|hi|hello|please)\b,? )*'
  rf'(?:what|who|whom|whose|which|where|when|why|how|{_AUXILIARY})\b[^.!?]*(?:[.!?]\W*)?',
  re.IGNORECASE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplyPrompt:
  """What `Decoder.generate` and `.stream` take, and where the reply ends."""

  prefix: Prompt
  text: Prompt
  stop: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
  """One exchange of this conversation."""

  text: str
  response: str


def is_question(message: str) -> bool:
  """Whether a message asks: its last sentence ends with a question mark, or it begins like one."""
  message = message.strip().rstrip('"\'”’) ')
  return message.endswith('?') or _UNMARKED.fullmatch(message) is not None


def only_asks(message: str) -> bool:
  """Whether a message is one question and nothing else: what it asks for it cannot tell."""
  return is_question(message) and _ASKS.fullmatch(' '.join(message.split())) is not None


def reply_prompt(
  message: str,
  *,
  user: str,
  agent: str,
  tokenizer: Tokenizer,
  limit: int,
  instruct: bool = False,
  memories: Sequence[Experience] = (),
  turns: Sequence[Turn] = (),
) -> ReplyPrompt:
  """The prompt for a reply, at most `limit` tokens long with its prefix.

  What is too long gives way in this order: the oldest turns, the memories that came last, the
  middle of the message.

  Args:
    user: whose 'I' the message has.
    agent: the name of the one who replies.
    memories: most important first.
    turns: earlier ones, oldest first.

  Raises:
    ValueError: not even the prefix fits.
  """
  memories, turns = list(memories), list(turns)
  build = _instruct if instruct else _pretrained
  words = tokenizer.encode(message)
  keep = len(words)
  while True:
    prompt = build(message, user, agent, tokenizer, memories, turns)
    over = 1 + _length(prompt.prefix, tokenizer) + _length(prompt.text, tokenizer) - limit
    if over <= 0:
      return prompt
    if turns:
      turns.pop(0)
    elif memories:
      memories.pop()
    elif keep > 0:
      keep = max(min(keep, len(words)) - over - 8, 0)  # joining can cost a token or two
      half = keep // 2
      message = tokenizer.decode(words[: keep - half]) + ' ... '
      message += tokenizer.decode(words[len(words) - half :])
    else:
      raise ValueError(
        f'decode.cache_length leaves {limit} tokens for a prompt, and an empty message needs '
        f'{limit + over}: raise it, or lower decode.max_tokens'
      )


def notes(memories: Sequence[Experience]) -> str:
  """Memories as lines before a question, the newest last: of two that differ it is the one to take.

  Note (2026-03-02): Priya said: "My parrot is called Biscuit."
  """
  lines = []
  for e in sorted(memories, key=lambda e: (e.time, e.id)):
    seen = [f'({m.kind}: {m.description})' for m in e.media if m.description]
    # One line each, and no quotes inside: a message cannot pretend to be several notes.
    words = ' '.join(' '.join([e.content, *seen]).replace('"', "'").split())
    words = words if len(words) <= NOTE_CHARS else words[:NOTE_CHARS] + '...'
    date = datetime.datetime.fromtimestamp(e.time, datetime.UTC)
    own = e.kind == 'reflection' and e.trust >= Trust.USER  # an imported one is anybody's
    line = RECOLLECTION if own else _NOTES.get(e.trust, NOTE)
    lines.append(line.format(date=date, speaker=e.speaker, words=words))
  return ''.join(lines)


def _pretrained(message, user, agent, tokenizer, memories, turns) -> ReplyPrompt:
  del agent, tokenizer
  message = _line(message)
  if is_question(message):
    text = notes(memories) + prompts.question(prompts.third_person(message, user))
    prefix = NOTES_PREFIX if memories else prompts.ANSWER_PREFIX
    return ReplyPrompt(prefix=prefix, text=text, stop=('\n',))
  # Without notes, and without what it has said in the same words already: to what is no question, a
  # small model would only say it again.
  said = ''.join(
    f'{STATEMENT}{_line(t.text)}\n{REPLY} {_line(t.response)}\n\n'
    for t in turns
    if t.response and not is_question(t.text) and _line(t.response) not in STATEMENT_PREFIX
  )
  text = f'{said}{STATEMENT}{message}\n{REPLY}'
  return ReplyPrompt(prefix=STATEMENT_PREFIX, text=text, stop=('\n',))


def _instruct(message, user, agent, tokenizer, memories, turns) -> ReplyPrompt:
  """Gemma's chat template (https://ai.google.dev/gemma/docs/core/prompt-structure)."""
  start, end, encode = tokenizer.start_of_turn, tokenizer.end_of_turn, tokenizer.encode
  head = [start, *encode('user\n' + INSTRUCTION.format(agent=agent, user=user))]
  ids: list[int] = []
  between = [end, *encode('\n'), start]
  for t in turns:
    if t.response:
      ids += [*encode(t.text), *between, *encode('model\n' + t.response), *between]
      ids += encode('user\n')
  if is_question(message):
    message = prompts.third_person(message, user)
  ids += [*encode(notes(memories) + message), *between, *encode('model\n')]
  return ReplyPrompt(prefix=tuple(head), text=tuple(ids), stop=())


def _line(text: str) -> str:
  """On one line, so that a message cannot end its turn."""
  return ' '.join(text.split())


def _length(prompt: Prompt, tokenizer: Tokenizer) -> int:
  return len(tokenizer.encode(prompt) if isinstance(prompt, str) else prompt)
