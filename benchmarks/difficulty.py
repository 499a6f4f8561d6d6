"""How hard a life's questions are, for recall that is not clever: see lives.py --check."""

from __future__ import annotations

import collections
import functools
import math
import re
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks import lives

K = 5
FUNCTION_WORDS = frozenset(
  'a about all am an and any are as at be because been but by can could did do does done for from '
  'get got had has have he her here him his how i if in is it its just me my no not now of off on '
  'one or our out she should so some than that the their them then there they this to up was we '
  'were what when where which while who whom whose why will with would you your'.split()
)


def words(text: str) -> list[str]:
  """Content words, with a coarse stem: 'lives', 'lived' and 'living' are one."""
  found = re.findall(r'\w+', re.sub(r"['’]\w\b", '', text.casefold()))
  return [
    re.sub(r'(?:ing|ied|ies|ed|es|s|e|y)$', '', w) if len(w) > 4 else w
    for w in found
    if w not in FUNCTION_WORDS
  ]


def ranked(scores: np.ndarray, k: int = K) -> list[int]:
  """The k best indices, best first; equal ones in their order."""
  return [int(i) for i in np.argsort(-scores, kind='stable')[:k]]


def report(life: lives.Life) -> dict[str, dict[str, float]]:
  """Prints and returns, for each kind, shares of 0 to 1:

  gold and other: the share of a question's content words that its best evidence has, and the best
  of all other experiences; overlap, bm25, embedding: questions with evidence among the first five
  by the number of shared words, by BM25 (k1 1.2, b 0.75; Robertson and Zaragoza 2009) over the
  words, and by WordLlama's cosine. All look at what was said alone.
  """
  ways = {'overlap': _overlap(life), 'bm25': _bm25(life), 'embedding': _embedding(life)}
  found: dict[str, list[dict[str, float]]] = collections.defaultdict(list)
  contents = [set(words(x.content)) for x in life.experiences]
  for q in life.questions:
    n, asked = life.known(q), set(words(q.question))
    shared = np.array([len(asked & c) / max(len(asked), 1) for c in contents[:n]])
    gold = list(q.evidence)
    row = {'gold': float(shared[gold].max())}
    row['other'] = float(np.delete(shared, gold).max(initial=0.0))
    for name, score in ways.items():
      row[name] = float(bool(set(ranked(score(q.question)[:n])) & set(gold)))
    for kind in (q.kind, f'split {q.split}', 'all'):
      found[kind].append(row)
  order = [k for k in (*lives.KINDS, 'split dev', 'split test', 'all') if k in found]
  out = {k: {c: statistics.fmean(r[c] for r in found[k]) for c in found[k][0]} for k in order}
  print(f'{"":12}{"n":>5}' + ''.join(f'{c:>11}' for c in next(iter(out.values()), {})))
  for kind, row in out.items():
    print(f'{kind:12}{len(found[kind]):5}' + ''.join(f'{v:11.3f}' for v in row.values()))
  return out


_Score = Callable[[str], np.ndarray]  # a question -> Float['N'], one for each experience


def _overlap(life: lives.Life) -> _Score:
  contents = [set(words(x.content)) for x in life.experiences]
  return lambda question: np.array([len(set(words(question)) & c) for c in contents], float)


def _bm25(life: lives.Life) -> _Score:
  documents = [collections.Counter(words(x.content)) for x in life.experiences]
  lengths = np.array([d.total() for d in documents], float)
  weights = 1.2 * (0.25 + 0.75 * lengths / max(lengths.mean(), 1e-9))

  @functools.cache
  def of(word: str) -> np.ndarray:
    counts = np.array([d[word] for d in documents], float)
    n = np.count_nonzero(counts)
    return math.log(1 + (len(documents) - n + 0.5) / (n + 0.5)) * counts * 2.2 / (counts + weights)

  def score(question: str) -> np.ndarray:
    return sum((of(w) for w in set(words(question))), np.zeros(len(documents)))

  return score


def _embedding(life: lives.Life) -> _Score:
  from dreaming.memory import embed, index

  embedder = embed.wordllama()
  texts: Sequence[str] = [x.content for x in life.experiences]
  vectors = np.concatenate([embedder(texts[i : i + 4096]) for i in range(0, len(texts), 4096)])
  found = index.Index(np.arange(len(texts)), vectors)
  return lambda question: found.cosines(embedder([question])[0])
