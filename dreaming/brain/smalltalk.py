"""Replies to what is no question: a pretrained model chooses them, it does not write them.

A small pretrained model that writes a reply says much the same to everything, or what it has just
heard ("I'm glad you like it."). It understands more than it can say: of short kind replies it can
tell which one a message makes likelier than other messages do. That is the pointwise mutual
information of the two, which keeps a dialogue from being dull (Li et al., "A Diversity-Promoting
Objective Function for Neural Conversation Models", arXiv 1510.03055).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from dreaming.brain import chat
from dreaming.brain.decode import Decoder
from dreaming.types import Mind

# Each could be said to many messages, is about nobody's facts and promises nothing but to remember.
REPLIES = (
  'Well done!', 'Congratulations!', 'You must be proud.', 'That is wonderful news.',
  'I am so glad for you.', 'How exciting!', 'What a nice surprise.',
  'I am sorry to hear that.', 'That sounds hard.',
  'I am here if you want to talk about it.', 'That must hurt.', 'I hope it heals fast.',
  'Look after yourself.', 'Get some rest.', 'I hope you feel better soon.',
  'Oh no!', 'How annoying.', 'What a pity.', 'No wonder you are cross.', 'What a mess!',
  'I hope it turns up again.', 'I hope they can mend it.', 'I hope it goes well.',
  'Good luck with it!', 'I will keep my fingers crossed.', 'Try not to worry too much.',
  'That is a good plan.', 'Have a good trip!', 'Have fun!', 'That is worth saving for.',
  'I will remember the date.', 'I will remember that.', 'I will keep that in mind.',
  'I have noted the change.', 'Thank you for telling me.', 'Of course.', 'Your secret is safe.',
  'They are lucky to have you.', 'They sound like good company.', 'You must miss them.',
  'How kind of them.', 'That was not kind of them.', 'Children are full of ideas.',
  'Animals have a mind of their own.', 'Pets are the best company.', 'Enjoy your meal!',
  'That sounds delicious.', 'That sounds like a lot of work.', 'Do not work too hard.',
  'That is a fine job.', 'It is never too late to learn.', 'You will get better at it.',
  'That is a lovely hobby.', 'You have good taste.', 'I can see why you love it.',
  'I can see why you dislike it.', 'Tastes differ.', 'What a nice memory.', 'How time flies.',
  'A good day to stay inside, then.', 'Enjoy the sun!', 'It will pass.', 'That made me smile.',
  'Who would have thought!', 'Money does not grow on trees.', 'Better safe than sorry.',
  'Good morning!', 'Good night, sleep well!', 'Have a good day.', 'You are welcome.',
  'See you later.', 'Take your time.',
)  # fmt: skip
_AGAINST = (  # of no kind in particular
  'Here is what I did today.', 'It is Tuesday.', 'I have something to say.', 'The street is long.',
)  # fmt: skip
_DULL = 0.7  # of what a reply is to anybody is taken off: at 1, odd ones win
_LONGEST = 160  # tokens: of a longer message its beginning and its end count
_FREQUENT = 8192  # tokens that probabilities are among, with those of the replies


class Replies:
  """Chooses replies. What is likely to anybody is asked once.

  Args:
    decoder: of the mind's architecture.
    mind: chooses; the base, so that replies are the same whatever was learned, and a swap costs
      nothing.
  """

  def __init__(self, decoder: Decoder, mind: Mind):
    self._decoder, self._mind, self._tokenizer = decoder, mind, decoder.tokenizer
    words = np.concatenate([self._tokenizer.encode(f' {r}\n') for r in REPLIES])
    frequent = np.arange(min(_FREQUENT, decoder.arch.vocab_size))
    self._among = np.union1d(frequent, words).astype(np.int32)
    self._usual: np.ndarray | None = None

  def __call__(self, message: str, earlier: Collection[str] = ()) -> str:
    """The reply that a message makes likeliest, compared with other messages.

    Args:
      message: what is replied to.
      earlier: replies that would come too soon again.
    """
    if self._usual is None:
      self._usual = np.mean([self._likely(m) for m in _AGAINST], axis=0)
    gain = self._likely(message) - _DULL * self._usual
    allowed = [i for i, r in enumerate(REPLIES) if r not in earlier] or range(len(REPLIES))
    return REPLIES[max(allowed, key=lambda i: gain[i])]

  def _likely(self, message: str) -> np.ndarray:
    words = ' '.join(message.split())  # on one line
    ids, half = self._tokenizer.encode(words), _LONGEST // 2
    if len(ids) > _LONGEST:
      words = ' ... '.join(self._tokenizer.decode(x) for x in (ids[:half], ids[-half:]))
    asked = f'{chat.STATEMENT}{words}\n{chat.REPLY}'
    tails = [f' {r}\n' for r in REPLIES]
    rows = self._decoder.logprobs(
      self._mind, [asked] * len(tails), tails, prefix=chat.STATEMENT_PREFIX, shortlist=self._among
    )
    return np.asarray([row.sum() for row in rows])
