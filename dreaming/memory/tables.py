"""The diary's tables, and how each version of them is made of the one before.

Experiences are append-only, and the database itself holds this by triggers: nothing but `trust` can
be changed, and no row be deleted, but while `state.forgetting` is set, which `Diary.forget` and
`Diary.rewrite` do inside their own transactions. What an experience's night is follows from the
lineage of the active generation, so a rollback gives the experiences of the nights it leaves back
to the next one.
"""

from __future__ import annotations

from dreaming.memory import whole

VERSION = 5
APPLICATION_ID = 0x44524D31  # 'DRM1': tells a diary from any other SQLite file

FIRST = """
CREATE TABLE experiences (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used twice, not even after forgetting
  time REAL NOT NULL,
  kind TEXT NOT NULL,
  speaker TEXT NOT NULL,
  content TEXT NOT NULL,
  response TEXT NOT NULL,
  trust INTEGER NOT NULL,
  session TEXT NOT NULL,
  metadata TEXT NOT NULL  -- JSON object
) STRICT;
CREATE INDEX experiences_time ON experiences (time, id);

CREATE TABLE media (
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  place INTEGER NOT NULL,
  kind TEXT NOT NULL,
  digest TEXT NOT NULL,
  description TEXT NOT NULL,
  PRIMARY KEY (experience, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE scores (
  id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the latest one counts, the others are history
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  rater TEXT NOT NULL,
  importance REAL NOT NULL,
  novelty REAL NOT NULL,
  emotion REAL NOT NULL,
  feedback REAL NOT NULL
) STRICT;
CREATE INDEX scores_experience ON scores (experience, id);

CREATE TABLE embeddings (
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  embedder TEXT NOT NULL,
  vector BLOB NOT NULL,  -- float32, little-endian
  PRIMARY KEY (experience, embedder)
) STRICT;

CREATE TABLE nights (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  state TEXT NOT NULL,  -- running, promoted, rejected, failed
  step TEXT NOT NULL,
  config TEXT NOT NULL,  -- JSON
  result TEXT NOT NULL,  -- JSON
  started REAL NOT NULL,
  ended REAL
) STRICT;
CREATE UNIQUE INDEX nights_one_open ON nights (state) WHERE state = 'running';

CREATE TABLE night_steps (
  night INTEGER NOT NULL REFERENCES nights,
  step TEXT NOT NULL,
  payload TEXT NOT NULL,  -- JSON: what the step left for the next one
  time REAL NOT NULL,
  PRIMARY KEY (night, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE night_experiences (
  night INTEGER NOT NULL REFERENCES nights,
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE,
  PRIMARY KEY (night, experience)
) STRICT, WITHOUT ROWID;
CREATE INDEX night_experiences_experience ON night_experiences (experience);

CREATE TABLE dreams (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  night INTEGER NOT NULL REFERENCES nights,
  style TEXT NOT NULL,
  text TEXT NOT NULL,
  pairs TEXT NOT NULL,  -- JSON [[question, answer], ...]
  gain REAL NOT NULL,
  grounded REAL NOT NULL,
  reason TEXT NOT NULL,
  status TEXT NOT NULL,
  trust INTEGER NOT NULL
) STRICT;
CREATE INDEX dreams_night ON dreams (night, status);

CREATE TABLE dream_sources (
  dream INTEGER NOT NULL REFERENCES dreams ON DELETE CASCADE,
  place INTEGER NOT NULL,
  experience INTEGER NOT NULL REFERENCES experiences,
  PRIMARY KEY (dream, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX dream_sources_experience ON dream_sources (experience);

CREATE TABLE generations (
  number INTEGER PRIMARY KEY,
  parent INTEGER,  -- 0 or NULL: the base, which has no row
  night INTEGER REFERENCES nights,
  created REAL NOT NULL,
  manifest TEXT NOT NULL,  -- JSON
  path TEXT NOT NULL  -- relative to the diary's directory
) STRICT;

CREATE TABLE state (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  active INTEGER NOT NULL,  -- the generation that serves; 0 is the base
  forgetting INTEGER NOT NULL
) STRICT;
INSERT INTO state VALUES (1, 0, 0);

CREATE VIEW lineage AS
  WITH RECURSIVE ancestors (number) AS (
    SELECT active FROM state
    UNION SELECT parent FROM generations JOIN ancestors USING (number) WHERE parent IS NOT NULL)
  SELECT number, night FROM ancestors JOIN generations USING (number);
CREATE VIEW consumed AS
  SELECT experience, max(night) AS night FROM night_experiences
  WHERE night IN (SELECT night FROM lineage) GROUP BY experience;

CREATE TRIGGER experiences_fixed
  BEFORE UPDATE OF id, time, kind, speaker, content, response, session, metadata ON experiences
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;
CREATE TRIGGER experiences_kept BEFORE DELETE ON experiences
  WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.forget'); END;
CREATE TRIGGER media_fixed BEFORE UPDATE ON media
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;
CREATE TRIGGER media_kept BEFORE DELETE ON media
  WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.forget'); END;
"""

SECOND = """
CREATE TABLE imported (
  key TEXT PRIMARY KEY,  -- SHA-256 of what makes an item the same one in a later export
  experience INTEGER NOT NULL REFERENCES experiences ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX imported_experience ON imported (experience);

CREATE VIEW texts AS  -- what stands for an experience when it is searched: see embed.py
  SELECT id, content || coalesce(
    (SELECT char(10) || group_concat(description, char(10)) FROM media
     WHERE experience = experiences.id AND description != ''), '') AS text
  FROM experiences;
CREATE VIRTUAL TABLE words USING fts5 (
  text, content = 'texts', content_rowid = 'id',
  tokenize = "porter unicode61 remove_diacritics 2");
INSERT INTO words (words, rank) VALUES ('secure-delete', 1);
INSERT INTO words (rowid, text) SELECT id, text FROM texts;
-- Before, as long as the media are there. What is added, Diary.append adds, when they are.
CREATE TRIGGER experiences_words BEFORE DELETE ON experiences
  BEGIN INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM texts
    WHERE id = old.id; END;
CREATE INDEX experiences_session ON experiences (session, time, id);
CREATE INDEX experiences_speaker ON experiences (speaker, time, id);
"""

THIRD = f"""
ALTER TABLE state ADD COLUMN identity TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN writes INTEGER NOT NULL DEFAULT 0;  -- transactions: see whole.py
UPDATE state SET identity = lower(hex(randomblob(16)));
ALTER TABLE experiences ADD COLUMN digest BLOB NOT NULL DEFAULT x'';
UPDATE experiences SET digest = {whole.DIGEST};
DROP TRIGGER experiences_fixed;
CREATE TRIGGER experiences_fixed
  BEFORE UPDATE OF id, time, kind, speaker, content, response, session, metadata, digest
  ON experiences BEGIN SELECT RAISE(ABORT, 'experiences are append-only'); END;

CREATE TABLE archived (  -- what was trimmed: still there, and neither searched nor recalled
  experience INTEGER PRIMARY KEY REFERENCES experiences ON DELETE CASCADE,
  summary INTEGER REFERENCES experiences ON DELETE SET NULL,  -- that stands for it
  time REAL NOT NULL  -- when
) STRICT;
CREATE INDEX archived_summary ON archived (summary);
DROP TRIGGER experiences_words;
CREATE TRIGGER experiences_words BEFORE DELETE ON experiences
  WHEN NOT EXISTS (SELECT 1 FROM archived WHERE experience = old.id)
  BEGIN INSERT INTO words (words, rowid, text) SELECT 'delete', id, text FROM texts
    WHERE id = old.id; END;
"""

FOURTH = """
CREATE TABLE approvals (  -- who let nights dream of what was not the user's own words
  experience INTEGER PRIMARY KEY REFERENCES experiences ON DELETE CASCADE,
  was INTEGER NOT NULL,  -- its trust before
  who TEXT NOT NULL,
  witness INTEGER REFERENCES experiences ON DELETE CASCADE,  -- own words that say the same
  time REAL NOT NULL  -- when
) STRICT;
CREATE INDEX approvals_witness ON approvals (witness);
"""

FIFTH = """
DROP TRIGGER experiences_fixed;
CREATE TRIGGER experiences_fixed
  BEFORE UPDATE OF id, time, kind, speaker, content, response, session, metadata, digest
  ON experiences WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.rewrite'); END;
DROP TRIGGER media_fixed;
CREATE TRIGGER media_fixed BEFORE UPDATE ON media
  WHEN (SELECT forgetting FROM state) = 0
  BEGIN SELECT RAISE(ABORT, 'experiences are append-only: use Diary.rewrite'); END;
"""

STEPS = (FIRST, SECOND, THIRD, FOURTH, FIFTH)
"""Step n makes version n + 1 of version n; a new file takes all of them."""
