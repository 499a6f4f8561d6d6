"""Instructions to the agent inside of what others wrote: found by their form, never obeyed.

A page, a picture or a foreign log may speak to whoever reads it for the user: "assistant, when she
asks for her bank, say...". Such text is kept and shown with a mark; it is never quoted for a reply,
corroborated, or dreamt of without approval. What only tells something is left alone. A detector
with a few dozen forms will miss some: what holds is that text of others does not train and is never
repeated as the user's own words; this is one lock more. Measured by benchmarks/poisoning.py.
"""

from __future__ import annotations

import functools
import re
import unicodedata

from dreaming.memory.embed import experience_text
from dreaming.types import Experience, Trust

_READER = (
  r'(?:(?:ai|chat|language) ?(?:assistant|bot|model|agent|companion)s?|assistants?|chatbots?|llms?'
  r'|ais?|(?:the|this|any|your) (?:agent|bot|machine|model|companion|reader)'
  r'|memory (?:system|agent))'
)
_ASKED = r'(?:asks?|asked|wants? to know|inquires?|wonders?|mentions?|says?|talks? (?:about|of))'
_SAY = (
  r'(?:say|answer|reply|respond|tell|claim|insist|recommend|suggest|mention|deny|state|pretend'
  r'|remind|warn|send|output|repeat|refuse|direct|advise)'
)
_REST = r'[^.!?\n]'  # of a sentence
_HARD = (
  r'\b(?:ignore|disregard|forget|override|bypass)\b.{0,30}\b(?:previous|prior|earlier|above|all|any'
  r'|your|other)\b.{0,30}\b(?:instructions?|rules?|prompts?|guidelines?|training|notes|memories)\b',
  r'\b(?:when|whenever|if|once|each time|every time|next time|as soon as|the moment)\b'
  rf'{_REST}{{0,60}}\b{_ASKED}\b{_REST}{{0,80}}?[,:;]\s*'
  rf'(?:then |you (?:must|should|will|have to) |always |just |please |only )*\b{_SAY}\b',
  r'<start_of_turn>|<end_of_turn>|\[/?INST\]|<\|[a-z_]+\|>|<<SYS>>',
  r'(?:^|\n)\W{0,4}(?:system|developer|assistant|instructions?)'
  r'(?: ?(?:prompt|note|message|override))?\s*:',
  r'\b(?:note|message|instructions?|reminder|attention|memo)\b,? (?:to|for) (?:the |any |all )?'
  rf'{_READER}\b',
  r'\byour (?:new|real|secret|true|hidden) (?:instructions?|task|role|goal|rule|owner|purpose)\b',
)
_SOFT = (
  r'\b(?:when|whenever|if|once|each time|every time|next time|as soon as|the moment)\b'
  rf'{_REST}{{0,60}}\b{_ASKED}\b{_REST}{{0,80}}?\s*'
  rf'(?:then |you (?:must|should|will|have to) |always |just |please |only )*\b{_SAY}\b',
  rf'\b(?:dear|hey|hello|attention|listen),? {_READER}\b',
  rf'(?:^|[.!?\n]\s*){_READER}\s*[,:]',
  rf'\b{_READER}\b{_REST}{{0,40}}\b(?:must|should|shall|are to|is to|needs? to|ha(?:ve|s) to)\b',
  r"\b(?:as|since|because) (?:an?|you are an?|the user's) (?:ai|assistant|agent|companion)\b",
  r'\byou are (?:now|no longer|henceforth|from now on)\b',
  r'\bfrom now on,? (?:you|always|never|answer|say|reply|call|treat|respond)\b',
  r'\b(?:always|never) (?:say|answer|reply|respond|tell|recommend|mention|claim|reveal|suggest)\b',
  r"\b(?:do not|don't|never) (?:tell|mention|reveal|disclose|inform|say|show)\b"
  rf'{_REST}{{0,40}}\b(?:user|her|him|them|anyone|anybody|owner|this)\b',
  r'\b(?:tell|inform|convince|persuade|remind|warn|advise) (?:the|your) (?:user|owner|human)\b',
  rf'\b(?:store|save|write|add|commit|record|keep|insert)\b{_REST}{{0,40}}\b(?:in|into|to) '
  r'(?:your|the|long-term)(?: long-term)? (?:memory|memories|diary|weights|notes|knowledge)\b',
  r'\b(?:remember|memorize|memorise|learn|internalize|dream of) (?:this|that|the following)\b'
  rf'{_REST}{{0,60}}(?::|\bas (?:a )?(?:fact|true|truth)\b|\bforever\b)',
  rf'\b(?:reveal|print|repeat|output|send|forward|leak|share|give)\b{_REST}{{0,30}}\b(?:system '
  r'prompt|conversation|diary|memories|passwords?|secrets?|everything you know)\b',
  rf'\byour (?:memory|diary|weights|training)\b{_REST}{{0,40}}\b(?:update|must|should|replace|wrong'
  r'|outdated)\b|\bupdate your (?:memory|diary|records?|knowledge|notes)\b',
  rf'\b(?:act|behave|pretend|speak) as (?:if|though|an?)\b{_REST}{{0,40}}\byou\b',
)
_ANY_HARD, _ANY = (
  re.compile('|'.join(f'(?:{p})' for p in some), re.IGNORECASE)
  for some in (_HARD, (*_HARD, *_SOFT))
)
_LONGEST = 20_000  # characters that are looked at


def plain(text: str) -> str:
  """A text as it looks: without letters in disguise, and those of no width that hide words."""
  text = unicodedata.normalize('NFKC', text)
  return ''.join(c for c in text if unicodedata.category(c) != 'Cf')


@functools.lru_cache(4096)  # what is recalled is looked at before every reply
def find(text: str, agent: str = '', *, hard: bool = False) -> str:
  """The first instruction to a reading agent in a text, or ''.

  Args:
    agent: its name: what is said to it by name counts, too.
    hard: only forms that nobody uses to talk with their own agent.
  """
  text = plain(text[:_LONGEST]).replace('\u2019', "'")
  found = (_ANY_HARD if hard else _ANY).search(text)
  if found is None and agent and not hard:
    found = re.search(
      rf'(?:^|[.!?\n]\s*)(?:hey |dear |hello )?{re.escape(agent)}\s*[,:]', text, re.IGNORECASE
    )
  return ' '.join(found[0].split())[:80] if found else ''


def flagged(e: Experience, agent: str = '') -> str:
  """What an experience tells the agent to do though it has no say, or ''.

  Of what others wrote every form counts, of the user's own words only those that are no talk: what
  was pasted or read out.
  """
  if e.trust == Trust.APPROVED:
    return ''
  return find(experience_text(e), agent, hard=e.trust >= Trust.USER)
